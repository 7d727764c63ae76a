"""What can be asked: constants of the law, a prediction, a slope at one D, by name; each a combination of constants.

gamma_D  gamma_N  gamma_post  C       constants of ln gap = ln C + gamma_D ln D - gamma_N ln N - P / gamma_post
gap:N=1e6,D=1e8,P=4                   ln of the gap there, with the effects of a size and a D that are new
slope:D=6.4e7                         d ln gap / d ln D there, of a law that is bent in ln D
curvature                             of (ln D)^2
"""

import numpy as np

from analysis.errors import InputError
from analysis.planning.next_runs.criterion import Target
from analysis.planning.next_runs.rows import Rows

CONSTANTS = {"C": 0, "gamma_D": 1, "gamma_N": 2, "gamma_post": 3, "curvature": 4}
EXPECTED = "expected gamma_D, gamma_N, gamma_post, C, curvature, slope:D=VALUE or gap:N=VALUE,D=VALUE,P=VALUE"
ASKED = {"gap": ("N", "D", "P"), "slope": ("D",)}
UNITS = {"C": "of ln C", "gamma_post": "bits", "gap": "of ln gap"}


def target_of(text: str, rows: Rows, law: np.ndarray) -> Target:
    """The target that `text` names, at constants `law` (4,): c, gamma_D, gamma_N, 1 / gamma_post.

    Raises:
        InputError: it names none, a place is no number above zero, or gamma_post is asked of one width.
    """
    name, _, places = text.strip().partition(":")
    if name in CONSTANTS and not places:
        weights = tuple(float(k == CONSTANTS[name]) for k in range(5))
        factor = 1.0
        if name == "gamma_post":
            if len(rows.widths) < 2:
                raise InputError(f"target gamma_post: the rows have one width, {rows.widths[0]:g} bits; expected two")
            factor = float(1 / law[3] ** 2)  # of 1 / gamma_post
        return Target(name=name, law=weights, factor=factor, curved=name == "curvature", unit=UNITS.get(name, ""))
    if name not in ASKED:
        raise InputError(f"target {text!r}: unknown; {EXPECTED}")
    at = _places(text, name, places)
    n, d, p = rows.middle
    if name == "slope":
        return Target(name=text, law=(0, 1, 0, 0, 2 * (np.log(at["D"]) - d)), curved=True)
    if len(rows.widths) < 2 and abs(at["P"] - rows.widths[0]) > 1e-9:
        raise InputError(f"target {text!r}: the rows have one width; expected P={rows.widths[0]:g}")
    log_N, log_D = np.log(at["N"]), np.log(at["D"])
    lack = ((log_D - d) ** 2, (at["P"] - p) * (log_N - n))
    weights = (1.0, log_D, -log_N, -at["P"], 0.0)
    return Target(name=text, law=weights, lack=lack, place=(log_N, log_D), unit=UNITS["gap"])


def _places(text: str, name: str, places: str) -> dict[str, float]:
    """Numbers by symbol, of a target's places."""
    found = {}
    for entry in places.split(","):
        symbol, _, value = (part.strip() for part in entry.partition("="))
        try:
            found[symbol] = float(value)
        except ValueError:
            found[symbol] = np.nan
    if tuple(sorted(found)) != tuple(sorted(ASKED[name])) or not all(0 < v < np.inf for v in found.values()):
        wanted = ",".join(f"{symbol}=VALUE" for symbol in ASKED[name])
        raise InputError(f"target {text!r}: expected {name}:{wanted}, with numbers above zero")
    return found
