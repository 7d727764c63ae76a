"""A study's folder: results/STUDY/runs.csv in, fits.json, slopes.csv and figures/ out."""

import dataclasses
from collections.abc import Callable, Iterable
from pathlib import Path

from analysis import table
from analysis.diagnostics.slopes import slopes_by_width, write
from analysis.errors import InputError
from analysis.figures.registry import FIGURES
from analysis.figures.style import save
from analysis.files import inside, remove
from analysis.fitting import store as fits_file
from analysis.fitting.fit import fit
from analysis.fitting.store import Fits

LAWS = ("chinchilla", "chinchilla_tied", "kumar_ptq", "kumar_unified", "kumar_neff", "kumar_neff_tied")
"""Fitted to every study: those that figures draw. `python -m analysis compare` ranks all others beside them."""

SLOPES_OF = "kumar_ptq"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Made:
    """The fits of a study, the paths of its table, fits, slopes and figures, and what was skipped with its reason.

    `slopes` is None where the table determines none; `verdict` says in a sentence whether its gap is a power of D.
    """

    fits: Fits
    table: Path
    stored: Path
    slopes: Path | None
    verdict: str
    figures: list[Path]
    skipped: dict[str, str]


def make(folder: Path, *, draws: int, seed: int, progress: Callable[[str], None]) -> Made:
    """Bring `folder`/fits.json up to date with `folder`/runs.csv, write its slopes.csv, and draw every figure that the
    table supports.

    Raises:
        InputError: no table, a link out of the folder, a file that cannot be written, or nothing for laws or figures to
            work on.
    """
    runs, stored = folder / "runs.csv", folder / "fits.json"
    for name in (runs.name, stored.name, "figures"):
        inside(folder / name, folder)
    frame = table.load(runs)
    if count := int(table.diverged(frame).sum()):
        progress(f"{runs}: {count} of {len(frame)} rows diverged, or have no finite loss, and are left out")
    if not _fresh(stored, runs, draws, seed):
        fits_file.write(stored, fit_all(LAWS, frame, runs, draws=draws, seed=seed, progress=progress))
    # Read back even when just written: figures then show the rounded numbers that the file holds.
    stored_fits = fits_file.read(stored)
    skipped, paths = dict(stored_fits.skipped), []
    slopes, verdict = folder / "slopes.csv", ""
    progress(f"slopes of the gap: {SLOPES_OF}")
    # Only what the table does not support is skipped; a file that cannot be written ends the command.
    try:
        by_width = slopes_by_width(SLOPES_OF, frame)
    except InputError as fault:
        remove(slopes)  # one of an earlier table
        slopes, skipped["slopes"] = None, str(fault)
    else:
        write(slopes, by_width)
        verdict = by_width.sentence
    for name, draw in FIGURES.items():
        progress(f"drawing {name}")
        try:
            drawn = draw(frame, stored_fits.fits)
        except InputError as fault:
            skipped[name] = str(fault)
        else:
            paths += save(drawn, folder / "figures", name)
    if not stored_fits.fits and not paths:
        raise InputError(f"{runs}: nothing to fit or to draw ({'; '.join(skipped.values())})")
    return Made(
        fits=stored_fits, table=runs, stored=stored, slopes=slopes, verdict=verdict, figures=paths, skipped=skipped
    )


def fit_all(laws: Iterable[str], frame, path: Path, *, draws: int, seed: int, progress) -> Fits:
    """Fit each of `laws` that the table supports; the others are listed with the reason."""
    done, skipped = {}, {}
    for name in laws:
        try:
            done[name] = fit(name, frame, bootstrap=draws, seed=seed, progress=progress)
        except InputError as fault:
            skipped[name] = str(fault)
    return Fits(name=path.name, sha256=table.digest(path), rows=len(frame), fits=done, skipped=skipped)


def _fresh(stored: Path, runs: Path, draws: int, seed: int) -> bool:
    """Whether `stored` already holds all laws of this very table, fitted in the same way."""
    try:
        fits = fits_file.read(stored)
    except InputError:
        return False
    same_options = all(
        (f.bootstrap.seed, f.filter) == (seed, "") and f.bootstrap.draws in (draws, 0) for f in fits.fits.values()
    )
    return same_options and fits.sha256 == table.digest(runs) and {*fits.fits, *fits.skipped} == {*LAWS}
