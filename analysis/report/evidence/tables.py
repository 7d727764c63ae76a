"""The committed tables, which of their rows a claim is about, and fits of those rows, each made once.

A claim names its rows (`Rows`): studies that are pooled, a quantizer, a granularity, a family of formats, a condition.
Pooled tables overlap where one run belongs to several studies; a row counts once.
"""

import contextlib
import dataclasses
import functools
import math
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from analysis import filters, table
from analysis.diagnostics.slopes import ByWidth, slopes_by_width
from analysis.errors import InputError
from analysis.files import inside
from analysis.fitting import store as fits_file
from analysis.fitting.fit import Fit, fit
from analysis.fitting.noise import CELL, seed_sd
from analysis.fitting.options import Options
from analysis.laws.law import FULL_BITS
from analysis.report.evidence.numbers import Number, Scatter, attempt, of_fit
from analysis.report.verdicts import NOT_RUN

COLUMNS = (
    *("run_id", "base_run_id", "parent_id", "trunk_id", "cluster", "seed_init", "seed_data", "N", "N_emb", "D"),
    *("tokens_seen", "corpus", "schedule", "lr_peak", "lr_end", "decay_tokens", "batch_tokens", "weight_decay", "tau"),
    *("P_w", "P_a", "P_kv", "format_w", "granularity_w", "granularity_a", "granularity_kv"),
    *("ptq", "P_post", "format_post", "granularity_post", "scale_rule", "setting", "bytes", "sigma2_post"),
    *("loss", "loss_se", "gap", "gap_se", "gap_qat", "gap_qat_se", "diverged", "device", "dtype", "commit", "seconds"),
)
"""What a table must have to be reported on; `python -m scaling.sweep collect` writes them all."""

TEXT = (
    *("run_id", "base_run_id", "parent_id", "trunk_id", "cluster"),
    *("ptq", "format_post", "granularity_post", "setting"),
)
CLEAR_WIDTHS = (3.0, 4.0)  # bits at which gaps stand well out of the noise
LOG_GAP_BELOW = 1.0  # nats of gap from which on logarithms of gaps no longer say what a law would
LEAST_FREEDOM = 3
METHODS = {"rtn": "rounded to nearest", "gptq": "GPTQ", "awq": "AWQ", None: "every quantizer"}
GRAINS = {"channel": "a scale a channel", "block16": "blocks of 16", None: "every granularity"}
FAMILIES = {"int": "integers", None: "every format"}
REPEATED = ("seeds", "overtraining")  # studies with runs that differ in their seeds alone


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rows:
    """Rows of the pooled tables of `studies`. Of quantized ones those of quantizer `ptq` at `granularity`, of formats
    of `family`; None: all. `where`: a condition on columns. Rows without quantization after training stay.

    `bits`, `gap_below`: the widths that laws of the gap are fitted on, and the predicted gap in nats from which on rows
    are not.
    """

    studies: tuple[str, ...]
    ptq: str | None = "rtn"
    granularity: str | None = "channel"
    family: str | None = "int"
    where: str | None = None
    bits: tuple[float, float] = Options.bits
    gap_below: float = Options.gap_below

    @property
    def how(self) -> str:
        """How gaps came about, in words."""
        words = METHODS.get(self.ptq, self.ptq), GRAINS.get(self.granularity, self.granularity)
        return ", ".join((*words, FAMILIES.get(self.family, self.family)))

    @property
    def limits(self) -> str:
        """Which of them laws are fitted on, in words."""
        limit = "no limit to" if math.isinf(self.gap_below) else f"below {self.gap_below:g} nats of"
        return "{:g} to {:g} bits, {} the predicted gap".format(*self.bits, limit)


def remembered(make: Callable) -> Callable:
    """Decorates a function of tables: what it returns or raises is made once for each of its other arguments."""

    @functools.wraps(make)
    def wrapped(tables: "Tables", *args, **options):
        key = (make, args, *sorted(options.items()))
        if key not in tables.made:
            try:
                tables.made[key] = make(tables, *args, **options)
            except InputError as fault:
                tables.made[key] = fault
        if isinstance(tables.made[key], InputError):
            raise tables.made[key]
        return tables.made[key]

    return wrapped


class Tables:
    """All tables below `folder`; `faults` says why one cannot be used. `draws`, `seed`: of the intervals of fits."""

    def __init__(self, folder: Path, studies: Iterable[str], *, draws: int, seed: int, progress: Callable[[str], None]):
        self.folder, self.draws, self.seed, self.progress = folder, draws, seed, progress
        self.frames: dict[str, pd.DataFrame] = {}
        self.faults: dict[str, str] = {}
        for study in studies:
            path = self.path(study)
            if path.exists():
                try:
                    self.frames[study] = checked(table.load(inside(path, folder)), path)
                except InputError as fault:
                    self.faults[study] = str(fault)
        self.made: dict[tuple, object] = {}

    def has(self, study: str) -> bool:
        return study in self.frames

    def need(self, study: str) -> None:
        """
        Raises:
            InputError: the study has no table.
        """
        if not self.has(study):
            raise InputError(f"{NOT_RUN}: `make sweep S={study}`")

    def path(self, study: str) -> Path:
        return self.folder / study / "runs.csv"

    @remembered
    def pooled(self, studies: tuple[str, ...]) -> pd.DataFrame:
        """The rows of these studies, each once.

        Raises:
            InputError: none of them has a table.
        """
        frames = [self.frames[study] for study in studies if study in self.frames]
        if not frames:
            raise InputError(f"no table of {', '.join(studies)}")
        rows = pd.concat(frames, ignore_index=True) if len(frames) > 1 else frames[0]
        rows = rows.drop_duplicates(["run_id", "tokens_seen", "setting"]).reset_index(drop=True)
        return rows.assign(tokens=table.nominal_tokens)

    @remembered
    def rows(self, selected: Rows) -> pd.DataFrame:
        """The selected rows, of runs that did not diverge.

        Raises:
            InputError: no study of them has a table, or the condition cannot be read.
        """
        frame = self.pooled(selected.studies)
        plain = ~table.diverged(frame)
        quantized = frame["ptq"].notna().to_numpy(bool)
        kept = np.ones(len(frame), bool)
        if selected.ptq is not None:
            kept &= (frame["ptq"] == selected.ptq).to_numpy(bool)
        if selected.granularity is not None:
            kept &= (frame["granularity_post"] == selected.granularity).to_numpy(bool)
        if selected.family is not None:
            kept &= frame["format_post"].astype(str).str.fullmatch(rf"{selected.family}\d+").to_numpy(bool)
            kept &= (frame["scale_rule"] == "absmax").to_numpy(bool)
        kept &= ~table.flags(frame, "act_order")
        for column in ("format_post_a", "format_post_kv"):
            if column in frame:
                kept &= frame[column].isna().to_numpy(bool)
        return filters.filtered(frame[plain & (kept | ~quantized)], selected.where)

    @remembered
    def fit(self, law: str, rows: Rows, *, draws: int | None = None) -> Fit:
        """The law fitted to these rows; a stored fit of the very same table is not made again.

        Raises:
            InputError: what a fit of the law raises.
        """
        stored = self._stored(law, rows)
        if stored is not None and stored.bootstrap.draws:
            return stored
        self.progress(f"  fitting {law}")
        options = {"bits": rows.bits, "gap_below": rows.gap_below, "seed": self.seed}
        return fit(law, self.rows(rows), bootstrap=self.draws if draws is None else draws, **options)

    def first_fit(self, laws: Iterable[str], rows: Rows) -> Fit:
        """The first of these laws that these rows are enough for.

        Raises:
            InputError: there is none.
        """
        *laws, last = laws
        for law in laws:
            with contextlib.suppress(InputError):
                return self.fit(law, rows)
        return self.fit(last, rows)

    def parameter(self, law: str, rows: Rows, symbol: str) -> Number:
        """A parameter of the law fitted to these rows, or the reason why they do not determine it."""
        return attempt(lambda: of_fit(self.fit(law, rows), symbol))

    def fits_of(self, *fits: Callable[["Tables"], Fit]) -> dict[str, Fit]:
        """What these functions make of the tables, by the names of laws; nothing if one cannot be fitted."""
        try:
            return {made.law.name: made for made in [fit(self) for fit in fits]}
        except InputError:
            return {}

    @remembered
    def slopes(self, law: str, rows: Rows) -> ByWidth:
        """Slopes of the gap in ln D of these rows.

        Raises:
            InputError: as `slopes_by_width`.
        """
        return slopes_by_width(law, self.rows(rows), bits=rows.bits, gap_below=rows.gap_below)

    def _stored(self, law: str, rows: Rows) -> Fit | None:
        """The fit in a study's fits.json, if it is of this very table and all rows of it are selected."""
        present = [study for study in rows.studies if study in self.frames]
        if rows != Rows(studies=rows.studies, ptq=None, granularity=None, family=None) or len(present) != 1:
            return None
        try:
            stored = fits_file.read(inside(self.folder / present[0] / "fits.json", self.folder))
        except InputError:
            return None
        fresh = stored.sha256 == table.digest(self.path(present[0]))
        made = stored.fits.get(law) if fresh else None
        return made if made is not None and not made.filter else None

    @remembered
    def scatter(self) -> Scatter:
        """How much runs scatter that differ in their seeds alone: from `seeds` and the repeated cells of
        `overtraining`.

        Raises:
            InputError: no table determines it.
        """
        if any(self.has(study) for study in REPEATED):
            rows = ends(self.rows(Rows(studies=REPEATED)))
            base = rows[rows["ptq"].isna()]
            freedom = int((base.groupby([c for c in CELL if c in base], dropna=False).size() - 1).sum())
            loss = seed_sd(base)
            after = [rows[(rows["P_post"] == bits) & (rows["gap"] > 0)] for bits in CLEAR_WIDTHS]
            # The same pooling over cells, of the logarithm of gaps.
            gaps = [sd for group in after if (sd := seed_sd(group.assign(loss=group["gap"]))) is not None]
            if loss is not None and gaps and freedom >= LEAST_FREEDOM:
                return Scatter(loss=loss, gap=float(np.sqrt(np.mean(np.square(gaps)))), freedom=freedom)
        raise InputError("no table has runs that differ in their seeds alone: make sweep S=seeds")


def checked(frame: pd.DataFrame, path: Path) -> pd.DataFrame:
    """A table as claims use it.

    Raises:
        InputError: it lacks a column.
    """
    lacking = [column for column in COLUMNS if column not in frame]
    if lacking:
        raise InputError(f"{path}: lacks the columns {', '.join(lacking)}; collect the study again")
    text = {column: frame[column].astype(object).where(frame[column].notna()) for column in TEXT}
    # A column without any entry is read as numbers.
    return frame.assign(**text)


def log_gaps(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows at the ends of models trained in 16 bits whose gaps at CLEAR_WIDTHS have a logarithm (`log`) that says what
    a law would.

    Raises:
        InputError: there is none.
    """
    rows = at_widths(frame, CLEAR_WIDTHS)
    rows = rows[(rows["gap"] > 0) & (rows["gap"] < LOG_GAP_BELOW)]
    if rows.empty:
        raise InputError("no gaps at 3 or 4 bits")
    return rows.assign(log=np.log(rows["gap"].astype(float)))


def at_common_cells(
    groups: Mapping[str, pd.DataFrame], keys: Collection[str] = ("N", "tokens", "P_post")
) -> dict[str, pd.DataFrame]:
    """The rows of each group at the cells that all of them have: what a filter took from one is taken from all, so that
    groups that differ in their gaps are not compared on different rows.

    Raises:
        InputError: there is no such cell.
    """
    cells = {name: [*rows[list(keys)].itertuples(index=False, name=None)] for name, rows in groups.items()}
    common = set.intersection(*map(set, cells.values()))
    if not common:
        raise InputError(f"no {', '.join(keys)} that all of {', '.join(groups)} have")
    return {name: rows[np.array([cell in common for cell in cells[name]], bool)] for name, rows in groups.items()}


def at_widths(frame: pd.DataFrame, widths: Collection[float]) -> pd.DataFrame:
    """Rows with a gap at one of these widths, at the ends of models trained in 16 bits."""
    rows = ends(full_precision(frame))
    return rows[rows["P_post"].isin(widths) & rows["gap"].notna()]


def ends(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows at the ends of runs."""
    return frame[(frame["tokens_seen"] >= frame["D"]).to_numpy(bool)]


def full_precision(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows of models that were trained in 16 bits."""
    return frame[(frame[["P_w", "P_a", "P_kv"]] >= FULL_BITS).all(axis=1)]
