"""Fits precision scaling laws to a tidy table, with intervals, and draws them. `python -m analysis --help`.

`analysis.fit(law, frame, ...) -> Fit` is the whole of it as a function; `analysis.LAWS` lists the laws. Both are
imported on first use, so that the command line answers `--help` without loading scipy.
"""

from importlib import import_module

_HOMES = {
    "fit": "analysis.fitting.fit",
    "Fit": "analysis.fitting.fit",
    "LAWS": "analysis.laws.registry",
    "InputError": "analysis.errors",
}


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module 'analysis' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
