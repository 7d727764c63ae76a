"""Fits precision scaling laws to a tidy table, with intervals, and draws them. `python -m analysis --help`.

From the bottom up; each imports only itself and what stands before it:

    errors, files  bad input, as one line; files that are whole or not there
    palettes       colours and markers of values, in figures and in notebooks
    notebook       results as HTML and as pictures
    laws/          every law as data
    filters        conditions on the columns of a table
    reading/       a file of any kind in, a frame with line numbers out
    table          a table read and checked
    fitting/       rows in, a fit with intervals out
    diagnostics/   is the law right, and can the table show it?
    planning/      what the laws advise
    figures/       numbers, and how they are drawn
    report/        claims and verdicts
    validation/    does the machinery recover what is known?
    cli/           a parser a command

The public interface, imported when it is first used, so that the command line answers `--help` without loading scipy:

    from analysis import compare, fit, laws, predict, read_fits, read_table

`fit` takes a law's name, an equation such as "A*N**-alpha + B*D**-beta + E", or what `law` makes of one. `laws` is the
folder of laws; `laws.LAWS` has them by name. Everything else is internal and may move.
"""

import sys
from importlib import import_module
from importlib.util import find_spec

if sys.argv[:1] == ["-m"] and find_spec("scipy") is None:  # as a command, of a Python that knows nothing of it
    sys.exit(
        f"analysis: {sys.executable} lacks its packages; activate the environment that has them: . .venv/bin/activate"
    )

_PUBLIC = {
    "fit": ("analysis.fitting.fit", "fit"),
    "Fit": ("analysis.fitting.fit", "Fit"),
    "predict": ("analysis.planning.predict", "predict"),
    "compare": ("analysis.diagnostics.compare", "compare"),
    "read_fits": ("analysis.fitting.store", "read"),
    "read_table": ("analysis.table", "load"),
    "law": ("analysis.laws.equations", "law"),
    "LAWS": ("analysis.laws.registry", "LAWS"),
    "InputError": ("analysis.errors", "InputError"),
}
__all__ = sorted([*_PUBLIC, "laws"])


def __getattr__(name: str):
    if name not in _PUBLIC:
        raise AttributeError(f"module 'analysis' has no attribute {name!r}")
    module, attribute = _PUBLIC[name]
    return getattr(import_module(module), attribute)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
