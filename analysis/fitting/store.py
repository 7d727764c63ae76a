"""FITS.json: fitted laws in a file that says everything about how they were made.

    {"schema": 2, "table": {"name", "sha256", "rows", "columns": their map if there is one}, "fits": {law: entry},
     "skipped": {law: why it was not fitted}, "sha256": of all before}

Numbers carry eight significant digits and nothing else varies (no times, no paths), so that refitting the same table
gives the same bytes. NaN and infinity are written as null.
"""

import dataclasses
import hashlib
import json
import math
from pathlib import Path

import numpy as np

from analysis.errors import InputError
from analysis.files import replacing
from analysis.fitting.fit import Fit
from analysis.fitting.intervals import Bootstrap, Interval
from analysis.fitting.noise import GapNoise
from analysis.fitting.options import Options
from analysis.laws.equations import law as equation_of
from analysis.laws.registry import LAWS, named

SCHEMA = 2
DIGITS = 8
LATER = ("weights", "hold", "base")  # options that older files do not have
PLAIN = ("objective", "huber_delta", "value", "rows", "filter", "left_out", "starts", "starts_at_optimum", "status")
PLAIN += ("condition", "active_share", "r2", "r2_within", "rmse", "warnings")  # written as they are


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fits:
    """What FITS.json holds. `sha256` is that of the table `name` with `rows` rows, `columns` the map of its columns."""

    name: str
    sha256: str
    rows: int
    fits: dict[str, Fit]
    skipped: dict[str, str] = dataclasses.field(default_factory=dict)
    columns: dict[str, str] = dataclasses.field(default_factory=dict)


def write(path: Path, fits: Fits) -> None:
    """Write `fits` to the JSON file `path`, whole or not at all."""
    content = {
        "schema": SCHEMA,
        "table": {"name": fits.name, "sha256": fits.sha256, "rows": fits.rows}
        | ({"columns": fits.columns} if fits.columns else {}),
        "fits": {name: entry(fit) for name, fit in sorted(fits.fits.items())},
        "skipped": dict(sorted(fits.skipped.items())),
    }
    content["sha256"] = _checksum(content)
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def read(path: Path | str) -> Fits:
    """The fits in `path`: `read(path).fits` has them by the names of their laws.

    Raises:
        InputError: no such file, not one that `write` made, or one that was changed since.

    >>> from analysis import read_fits
    >>> fits = read_fits("results/overtraining/fits.json").fits
    >>> fits["kumar_ptq"].rows, fits["chinchilla"].rows
    (138, 39)
    """
    path = Path(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        _check(content)
        if content["schema"] != SCHEMA:
            raise InputError(f"{path}: schema {content['schema']}, expected {SCHEMA}; fit again")
        return Fits(
            name=content["table"]["name"],
            sha256=content["table"]["sha256"],
            rows=content["table"]["rows"],
            fits={name: _restore(stored) for name, stored in content["fits"].items()},
            skipped=content["skipped"],
            columns=content["table"].get("columns", {}),
        )
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; make it with python -m analysis fit") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as fault:
        reason = " ".join(f"{type(fault).__name__} {fault}".split())
        raise InputError(f"{path}: not a file of fits ({reason}); make it with python -m analysis fit") from None


def _checksum(content: dict) -> str:
    """sha256 of what a file says, its own checksum apart, however it is spaced."""
    others = {name: value for name, value in content.items() if name != "sha256"}
    return hashlib.sha256(json.dumps(others, sort_keys=True).encode()).hexdigest()


def _check(content: dict) -> None:
    """Raise ValueError if a file does not say what was written. Files of earlier versions have no checksum."""
    if unknown := content.keys() - {"schema", "table", "fits", "skipped", "sha256"}:
        raise ValueError(f"unknown {', '.join(sorted(unknown))}")
    if "sha256" in content and content["sha256"] != _checksum(content):
        raise ValueError("its checksum is another, so it was damaged or edited")


def entry(fit: Fit) -> dict:
    """One fit as plain JSON values."""
    made = {
        "law": fit.law.name,
        "equation": fit.law.equation,
        "source": fit.law.source,
        "params": {
            p.symbol: {
                **dataclasses.asdict(fit.intervals.get(p.symbol, Interval(value=fit.params[p.symbol]))),
                "unit": p.unit,
                "at_bound": fit.at_bound.get(p.symbol, False),
            }
            for p in fit.law.ordered
        },
        "options": _options(fit.options),
        "constants": dict(fit.law.constants),
        "held": dict(fit.law.held),
        "schemes": list(fit.law.categories),
        **{name: getattr(fit, name) for name in PLAIN},
        "ranges": {name: list(ends) for name, ends in fit.ranges.items()},
        "noise": dataclasses.asdict(fit.noise) if fit.noise else None,
        "bootstrap": dataclasses.asdict(fit.bootstrap),
    }
    made = rounded(made)
    made["draws"] = None if fit.draws is None else [[float(f"{v:.6g}") for v in draw] for draw in fit.draws.tolist()]
    return made


def _options(options: Options) -> dict:
    """Options as plain values; those of `LATER` only where they say something."""
    return {name: value for name, value in dataclasses.asdict(options).items() if name not in LATER or value}


def _restore(stored: dict) -> Fit:
    law = named(stored["law"]) if stored["law"] in LAWS else equation_of(stored["equation"], name=stored["law"])
    if law.for_schemes is not None:
        law = law.for_schemes(tuple(stored["schemes"]))
    options = {k: tuple(v) if isinstance(v, list) else v for k, v in stored["options"].items()}
    law = law.without({part: float(bits) for part, bits in stored["held"].items()}).hold(options.get("hold", {}))
    params = {p.symbol: float(stored["params"][p.symbol]["value"]) for p in law.ordered}
    intervals = {
        symbol: Interval(**{name: _number(stored["params"][symbol][name]) for name in ("value", "low", "high", "se")})
        for symbol in params
        if stored["bootstrap"]["draws"]
    }
    plain = {
        name: _number(value) if (value := stored[name]) is None and name != "huber_delta" else value for name in PLAIN
    }
    return Fit(
        law=law,
        options=Options(**options),
        params=params,
        intervals=intervals,
        draws=None if stored["draws"] is None else np.array(stored["draws"], float),
        bootstrap=Bootstrap(**{k: _number(v) if v is None else v for k, v in stored["bootstrap"].items()}),
        noise=GapNoise(**stored["noise"]) if stored["noise"] else None,
        at_bound={symbol: stored["params"][symbol]["at_bound"] for symbol in params},
        ranges={name: (ends[0], ends[1]) for name, ends in stored["ranges"].items()},
        **plain,
    )


def published(law_name: str) -> Fit:
    """A law with the constants of its source, as a fit without rows, intervals or starts."""
    law = LAWS[law_name]
    return Fit(
        law=law,
        options=Options(bootstrap=0),
        params=law.published,
        intervals={},
        draws=None,
        bootstrap=Bootstrap.none(),
        objective="published",
        huber_delta=None,
        value=math.nan,
        noise=None,
        rows=0,
        filter="",
        left_out={},
        starts=0,
        starts_at_optimum=0,
        status="published",
        condition=math.nan,
        at_bound={},
        active_share=math.nan,
        r2=math.nan,
        r2_within={},
        rmse=math.nan,
        ranges={},
        warnings=[],
    )


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def rounded(value):
    """JSON values with eight significant digits; NaN and infinity as null."""
    if isinstance(value, dict):
        return {k: rounded(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [rounded(v) for v in value]
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
    return value
