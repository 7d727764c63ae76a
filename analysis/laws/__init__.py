"""Every law as data: what a law is (`law`), its variables, the families of laws, and the registry of all of them."""
