"""The registry of laws. A new law is a `Law` in a module of its family, listed here; one that is needed once is an
equation in place of a name."""

from analysis.errors import InputError, nearest
from analysis.laws import (
    after_training,
    chinchilla,
    equations,
    kumar,
    low_precision,
    precision_forms,
    repeated_data,
    schemes,
)
from analysis.laws.law import Law

FAMILIES = (chinchilla, repeated_data, kumar, precision_forms, low_precision, schemes, after_training)
LAWS: dict[str, Law] = {law.name: law for family in FAMILIES for law in family.LAWS}


def named(name: str) -> Law:
    """The law of that name, or of that equation.

    Raises:
        InputError: there is none.
    """
    if name not in LAWS and equations.is_equation(name):
        return equations.law(name)
    if name not in LAWS:
        raise InputError(f"{name}: no such law; {nearest(name, LAWS)}")
    return LAWS[name]
