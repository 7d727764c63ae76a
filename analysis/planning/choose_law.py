"""Which of several fitted laws answers a question, and whether the question lies outside the rows it was fitted on.

`predict` and `plan` both ask here, so that one file of fits gives one answer. The loss of training comes from a law
with N_eff wherever one was fitted, of models in 16 bits too: then losses at different bits can be subtracted from each
other, while two laws, fitted to different rows, differ by more than bits often do. Only without such a law does one
answer that knows 16 bits alone.
"""

from collections.abc import Mapping

from analysis.errors import InputError
from analysis.fitting.fit import Fit
from analysis.laws.kumar import PARTS
from analysis.laws.law import FULL_BITS

LOW_LAWS = ("kumar_neff", "kumar_neff_tied")  # with N_eff; of those that know as many parts, the first
FULL_LAWS = ("chinchilla", "chinchilla_tied")  # for 16 bits alone, in the order in which they are preferred
LOSS_LAWS = LOW_LAWS + FULL_LAWS
GAP_LAW = "kumar_ptq"  # what quantization adds to models trained in 16 bits
UNIFIED = "kumar_unified"  # ... and to models trained in low precision
SLACK = 1.01  # D is a number of whole batches: a question this near to the rows is among them


def parts_of(fit: Fit) -> tuple[str, ...]:
    """The precision columns that a fitted law knows."""
    return tuple(part for part in PARTS if part in fit.law.variables)


def loss_law(fits: Mapping[str, Fit], low: Mapping[str, float] | None = None) -> Fit:
    """The law of the loss for training with the parts `low` at these bits: with N_eff, if there is one that knows them,
    and of several the one that knows most parts.

    Raises:
        InputError: there is none.
    """
    low = low or {}
    low_laws = [fits[name] for name in LOW_LAWS if name in fits and knows(fits[name], low)]
    if low_laws:
        return max(low_laws, key=lambda fit: len(parts_of(fit)))
    wanted = LOW_LAWS if low else LOSS_LAWS
    if not low and (known := [fits[name] for name in FULL_LAWS if name in fits]):
        return known[0]
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
    return all(part in fit.law.variables or fit.law.held.get(part) == bits for part, bits in low.items())


def outside(fit: Fit, at: Mapping[str, float]) -> list[str]:
    """A line for each variable in which the question `at` lies outside the rows that the law was fitted on; precision
    columns that it does not name are asked at 16 bits."""
    lines = [
        f"{fit.law.name} was fitted on {name} from {low:.4g} to {high:.4g}, asked at {at[name]:.4g}"
        for name, (low, high) in fit.ranges.items()
        if name in at and not low / SLACK <= at[name] <= high * SLACK
    ]
    held = {part: bits for part, bits in fit.law.held.items() if at.get(part, FULL_BITS) != bits}
    return lines + [
        f"{fit.law.name} was fitted on {part} = {bits:g} alone, asked at {at.get(part, FULL_BITS):.4g}"
        for part, bits in held.items()
    ]
