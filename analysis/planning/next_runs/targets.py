"""What can be asked: constants of the law, a prediction, a slope at one D, another law: combinations of constants.

gamma_D  gamma_N  gamma_post  C       constants of ln gap = ln C + gamma_D ln D - gamma_N ln N - P / gamma_post
gap:N=1e6,D=1e8,P=4                   ln of the gap there, with the effects of a size and a D that are new
slope:D=6.4e7                         d ln gap / d ln D there, of a law that is bent in ln D
curvature                             of (ln D)^2
law:NAME                              how far the gaps are on the way from this law to another: 0 here, 1 there
"""

from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd

from analysis.errors import InputError
from analysis.fitting.fit import fit
from analysis.laws.registry import named
from analysis.planning.next_runs.criterion import Target
from analysis.planning.next_runs.rows import Rows, columns

CONSTANTS = {"C": 0, "gamma_D": 1, "gamma_N": 2, "gamma_post": 3, "curvature": 4}
EXPECTED = "gamma_D, gamma_N, gamma_post, C, curvature, slope:D=VALUE, gap:N=VALUE,D=VALUE,P=VALUE or law:NAME"
ASKED = {"gap": ("N", "D", "P"), "slope": ("D",)}
UNITS = {"C": "of ln C", "gamma_post": "bits", "gap": "of ln gap"}
KNOWN = ("N", "D", "P_post")
"""What is known of a cell before it is trained."""
OWN = "kumar_ptq"
"""The law that designs are judged by."""
ALIKE = 1e-3
"""Of ln gap, rms over the rows: another law that differs less from this one is the same to them."""


def target_of(text: str, rows: Rows, law: np.ndarray) -> Target:
    """The target that `text` names, at constants `law` (4,): c, gamma_D, gamma_N, 1 / gamma_post.

    Raises:
        InputError: it names none, a place is no number above zero, or gamma_post is to come from one width; a law that
            cannot be fitted to the rows, or says the same of them.
    """
    name, _, places = text.strip().partition(":")
    _, d, p = rows.middle
    if name in CONSTANTS and not places:
        weights = tuple(float(k == CONSTANTS[name]) for k in range(5))
        factor = 1.0
        if name == "gamma_post":
            if len(rows.widths) < 2:
                raise InputError(f"target gamma_post: the rows have one width, {rows.widths[0]:g} bits; expected two")
            factor = float(1 / law[3] ** 2)  # of 1 / gamma_post
        bent = {"fifth": _curvature(d), "curved": True} if name == "curvature" else {}
        return Target(name=name, law=weights, factor=factor, unit=UNITS.get(name, ""), **bent)
    if name == "law" and places:
        return _another_law(text, places.strip(), rows, law)
    if name not in ASKED:
        raise InputError(f"target {text!r}: unknown; expected {EXPECTED}")
    at = _places(text, name, places)
    if name == "slope":
        weights = (0, 1, 0, 0, 2 * (np.log(at["D"]) - d))
        return Target(name=text, law=weights, fifth=_curvature(d), curved=True)
    if len(rows.widths) < 2 and abs(at["P"] - rows.widths[0]) > 1e-9:
        raise InputError(f"target {text!r}: the rows have one width; expected P={rows.widths[0]:g}")
    log_N, log_D = np.log(at["N"]), np.log(at["D"])
    lack = ((log_D - d) ** 2, (at["P"] - p) * (log_N - rows.middle[0]))
    weights = (1.0, log_D, -log_N, -at["P"], 0.0)
    return Target(name=text, law=weights, lack=lack, place=(log_N, log_D), unit=UNITS["gap"])


def _curvature(middle: float) -> Callable[..., np.ndarray]:
    return lambda log_N, log_D, P: (log_D - middle) ** 2


def _another_law(text: str, name: str, rows: Rows, law: np.ndarray) -> Target:
    """The share of another law's difference from this one (a J test: Davidson & MacKinnon 1981, Econometrica 49), both
    as they are fitted to the rows."""
    if name == OWN:
        raise InputError(f"target {text!r}: designs are judged by {OWN} itself; name another law of gaps")
    asked = named(name)
    if asked.response != "gap" or not set(asked.variables) <= set(KNOWN):
        why = f"of {asked.response} in {', '.join(asked.variables)}"
        raise InputError(f"target {text!r}: a law {why}; expected one of gap in {', '.join(KNOWN)}")
    frame = _frame(rows.log_N, rows.log_D, rows.P)
    other = fit(asked, frame.assign(gap=np.exp(rows.log_gap), run_id=rows.run), bootstrap=0, filter="gap > 0")

    def differs(log_N: np.ndarray, log_D: np.ndarray, P: np.ndarray) -> np.ndarray:
        n, d, p = (v.ravel() for v in np.broadcast_arrays(log_N, log_D, P))
        with np.errstate(divide="ignore", invalid="ignore"):
            away = np.log(other.predict(_frame(n, d, p))) - columns(n, d, p) @ law
        return np.where(np.isfinite(away), away, 0.0).reshape(np.broadcast(log_N, log_D, P).shape)

    z = differs(rows.log_N, rows.log_D, rows.P)
    rest = z - rows.X @ np.linalg.lstsq(rows.X, z, rcond=None)[0]
    if np.sqrt(np.mean(rest**2)) < ALIKE:
        raise InputError(f"target {text!r}: fitted to these rows it says the same as {OWN}; no run distinguishes them")
    unit = f"(0: {OWN}, 1: {name}; below .5 to both sides distinguishes them)"
    return Target(name=text, law=(0, 0, 0, 0, 1.0), fifth=differs, unit=unit)


def _frame(log_N: np.ndarray, log_D: np.ndarray, P: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame({"N": np.exp(log_N), "D": np.exp(log_D), "P_post": P})


def _places(text: str, name: str, places: str) -> Mapping[str, float]:
    """Numbers by symbol, of a target's places."""
    numbers = {}
    for entry in places.split(","):
        symbol, _, value = (part.strip() for part in entry.partition("="))
        try:
            numbers[symbol] = float(value)
        except ValueError:
            numbers[symbol] = np.nan
    if tuple(sorted(numbers)) != tuple(sorted(ASKED[name])) or not all(0 < v < np.inf for v in numbers.values()):
        wanted = ",".join(f"{symbol}=VALUE" for symbol in ASKED[name])
        raise InputError(f"target {text!r}: expected {name}:{wanted}, with numbers above zero")
    return numbers
