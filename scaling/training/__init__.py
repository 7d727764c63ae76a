"""One stack of models trained to its end."""
