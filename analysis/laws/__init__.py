"""Every law as data: what a law is (`law`), its variables, the families of laws, and the registry of all of them."""

from importlib import import_module


def __getattr__(name: str):
    if name != "LAWS":
        raise AttributeError(f"module 'analysis.laws' has no attribute {name!r}")
    return import_module("analysis.laws.registry").LAWS
