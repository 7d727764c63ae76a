"""Which of several fitted laws answers a question, and whether the question lies outside the rows it was fitted on.

`predict` and `plan` both ask here, so that one file of fits gives one answer. The loss of training comes from a law
with N_eff wherever one was fitted, of models in 16 bits too: then losses at different bits can be subtracted from each
other, while two laws, fitted to different rows, differ by more than bits often do. Only without such a law does one
answer that knows 16 bits alone, and only without that any other law of losses, unless it is asked for by its name.
"""

from collections.abc import Mapping

import numpy as np

from analysis.errors import InputError
from analysis.fitting.fit import Fit
from analysis.laws.kumar import PARTS
from analysis.laws.law import FULL_BITS, Law
from analysis.laws.variables import BY_FORMAT, column, of_format
from analysis.numbers import number

LOW_LAWS = ("kumar_neff", "kumar_neff_tied")  # with N_eff; of those that know as many parts, the first
FULL_LAWS = ("chinchilla", "chinchilla_tied")  # for 16 bits alone, in the order in which they are preferred
LOSS_LAWS = LOW_LAWS + FULL_LAWS
FORMULAS = LOSS_LAWS  # laws that `laws.formulas` has
GAP_LAW = "kumar_ptq"  # what quantization adds to models trained in 16 bits
UNIFIED = "kumar_unified"  # ... and to models trained in low precision
DESCRIBES = {"scheme": ("P_w", "P_a", "P_kv"), "E_w": ("P_w",), "sigma2_w": ("P_w",), "sigma2_a": ("P_a",)}
"""Variables by which laws without a width know how a part was trained."""
Value = float | str
SLACK = 1.01  # D is a number of whole batches: a question this near to the rows is among them


def parts_of(fit: Fit) -> tuple[str, ...]:
    """The precision columns that a fitted law knows."""
    return tuple(part for part in PARTS if part in fit.law.variables)


def asked_law(fits: Mapping[str, Fit], name: str, responses: tuple[str, ...] = ("loss",)) -> Fit:
    """The law of that name, which is one of losses (or of another of these responses).

    Raises:
        InputError: there is none.
    """
    if name not in fits:
        raise InputError(f"law={name}: there is no such fit; use one of {', '.join(fits)}")
    if fits[name].law.response not in responses:
        raise InputError(f"law={name}: a law of {fits[name].law.response}; expected one of {' or '.join(responses)}")
    return fits[name]


def loss_law(fits: Mapping[str, Fit], low: Mapping[str, float] | None = None, name: str | None = None) -> Fit:
    """The law of the loss for training with the parts `low` at these bits: `name`, or with N_eff, if there is one that
    knows them, and of several the one that knows most parts, or else the first that knows them.

    Raises:
        InputError: there is none.
    """
    low = low or {}
    if name is not None:
        fit = asked_law(fits, name)
        if not knows(fit, low):
            raise InputError(f"law={name}: it does not know {', '.join(low)} below {FULL_BITS:g} bits")
        return fit
    low_laws = [fits[name] for name in LOW_LAWS if name in fits and knows(fits[name], low)]
    if low_laws:
        return max(low_laws, key=lambda fit: len(parts_of(fit)))
    wanted = LOW_LAWS if low else LOSS_LAWS
    if not low and (known := [fits[name] for name in FULL_LAWS if name in fits]):
        return known[0]
    if others := [fit for fit in fits.values() if fit.law.response == "loss" and knows(fit, low)]:
        return others[0]
    asked = f"law for {', '.join(low)} below {FULL_BITS:g} bits" if low else "law for a loss"
    raise InputError(
        f"no {asked} among {', '.join(fits)}; fit one of {', '.join(wanted)}" + " on a table with such runs" * bool(low)
    )


def gap_law(fits: Mapping[str, Fit], low: Mapping[str, float] | None = None) -> Fit:
    """The law of what quantization adds after training with the parts `low` at these bits.

    Raises:
        InputError: there is none.
    """
    if low:
        if UNIFIED in fits and knows(fits[UNIFIED], low):
            return fits[UNIFIED]
        holds = f"{GAP_LAW} holds for models trained in {FULL_BITS:g} bits" if GAP_LAW in fits else f"no {GAP_LAW}"
        known = f"{UNIFIED} does not know {', '.join(low)}" if UNIFIED in fits else f"there is no {UNIFIED}"
        raise InputError(f"{holds}, and {known} among {', '.join(fits)}")
    for name in (GAP_LAW, UNIFIED):
        if name in fits:
            return fits[name]
    raise InputError(f"no {GAP_LAW} among {', '.join(fits)}; fit it on a table with quantized models")


def knows(fit: Fit, low: Mapping[str, float]) -> bool:
    """Whether a fitted law covers these parts at these bits: as variables, or as what all of its rows had."""
    described = {part for name in fit.law.variables for part in DESCRIBES.get(name, (name,))}
    return all(part in described or fit.law.held.get(part) == bits for part, bits in low.items())


def question(
    law: Law, at: Mapping[str, float], formats: Mapping[str, str] | None = None, more: Mapping[str, Value] | None = None
) -> dict[str, np.ndarray]:
    """The variables of `law` (1,) at a question: N, D and bits `at` it, what follows from the names of `formats` of
    parts, and other variables that are given (`more`). Repeated tokens, schemes and rounding errors that are not: none.

    Raises:
        InputError: the law needs more, or what is said is no number or no scheme of it.
    """
    known: dict[str, Value] = {"unique_tokens": np.inf, "C": 6 * at["N"] * at["D"]} if {"N", "D"} <= set(at) else {}
    if law.categories:
        known["scheme"] = law.categories[0]
    for name, (part, what) in BY_FORMAT.items():
        known |= {name: value} if (value := of_format((formats or {}).get(part, ""), what)) is not None else {}
    for name, part in (("sigma2_w", "P_w"), ("sigma2_a", "P_a")):
        known |= {name: 0.0} if at.get(part, FULL_BITS) >= FULL_BITS else {}
    known |= {**at, **(more or {})}
    if missing := [name for name in law.variables if name not in known]:
        raise InputError(f"{law.name}: needs {', '.join(missing)}; say so by --at {missing[0]}=VALUE")
    try:
        values = {name: known[name] if name == "scheme" else number(known[name]) for name in law.variables}
    except ValueError as fault:
        raise InputError(f"{law.name}: {fault}; expected a number") from None
    frame = {name: np.array([value if name != "scheme" else str(value)]) for name, value in values.items()}
    return {name: column(frame, name, law.categories) for name in law.variables}


def outside(fit: Fit, at: Mapping[str, float]) -> list[str]:
    """A line for each variable in which the question `at` lies outside the rows that the law was fitted on; precision
    columns that it does not name are asked at 16 bits."""
    lines = [
        f"{fit.law.name} was fitted on {name} from {low:.4g} to {high:.4g}, asked at {at[name]:.4g}"
        for name, (low, high) in fit.ranges.items()
        if name in at and name != "scheme" and not low / SLACK <= at[name] <= high * SLACK
    ]
    held = {part: bits for part, bits in fit.law.held.items() if at.get(part, FULL_BITS) != bits}
    return lines + [
        f"{fit.law.name} was fitted on {part} = {bits:g} alone, asked at {at.get(part, FULL_BITS):.4g}"
        for part, bits in held.items()
    ]
