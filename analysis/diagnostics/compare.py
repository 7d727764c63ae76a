"""Ranks laws by how well they predict rows that they were not fitted on.

A comparison is only one of laws if the rows are the same, in the fit and in the score. So each ranking is of the laws
that can use one set of rows: the rows of some law, or what several have in common. A law that describes training in low
precision and one that does not share no such set that both can be fitted on, and are ranked apart; a law may be in more
than one ranking. `ranking` makes one of them.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import pandas as pd

from analysis import filters, notebook, table
from analysis.diagnostics.holdout import FOLDS, Holdout, shared_rows
from analysis.diagnostics.ranking import Candidates, Ranking, rank
from analysis.errors import InputError
from analysis.fitting.options import Options
from analysis.fitting.selection import Selection, select
from analysis.fitting.store import rounded
from analysis.laws.law import Law
from analysis.laws.registry import LAWS, named

RESPONSES = ("loss", "gap", "gap_qat")
REASONS = 2  # that are named where nothing can be compared


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison:
    """All rankings that a table allows, and why the other laws are in none."""

    holdout: str
    seed: int
    filter: str
    rows: int
    rankings: list[Ranking]
    skipped: dict[str, str]

    def to_frame(self) -> pd.DataFrame:
        """A row a law in each ranking: response, rows, rank (NaN without one), law, parameters, its errors on the
        held-out rows (rmse, mae, bias in nats, r2), `wins` (the share of draws in which it beats the first), status."""
        return pd.DataFrame(
            {
                "response": ranking.response,
                "rows": ranking.rows,
                "rank": score.rank,
                "law": score.law,
                "parameters": score.parameters,
                **{name: getattr(score.measures, name) for name in ("rmse", "mae", "bias", "r2")},
                "wins": score.upset,
                "status": score.status,
            }
            for ranking in self.rankings
            for score in ranking.scores
        )

    def __repr__(self) -> str:
        return self.to_frame().to_string(index=False, float_format="{:.4g}".format)

    def _repr_html_(self) -> str:
        missing = [f"not compared: {', '.join(laws)}: {reason}" for reason, laws in by_reason(self.skipped).items()]
        return notebook.page(f"held out: {self.holdout}", self.to_frame(), missing, index=False)

    def plot(self, path: Path | str | None = None):
        """Each law's error on the held-out rows, a panel a ranking: a matplotlib figure, written to `path` if given.

        Raises:
            InputError: `path` is no picture, or cannot be written.
        """
        from matplotlib.figure import Figure

        most = max(len(ranking.scores) for ranking in self.rankings)
        figure = Figure(figsize=(3.6 * len(self.rankings), 1.2 + 0.22 * most), layout="constrained")
        for axis, ranking in zip(figure.subplots(1, len(self.rankings), squeeze=False)[0], self.rankings, strict=True):
            scores = ranking.scores[::-1]
            axis.plot([score.measures.rmse for score in scores], [score.law for score in scores], "o")
            notebook.log_x(axis)
            axis.set(xlabel="RMSE (nats)", title=f"{ranking.response}: {ranking.rows} rows")
            axis.grid(axis="y", color="0.9")
        return notebook.written(figure, path)

    def to_json(self) -> dict:
        """Plain JSON values; eight digits, NaN as null, predictions left out."""
        rankings = [
            {f.name: getattr(r, f.name) for f in dataclasses.fields(r) if f.name not in ("predictions", "scores")}
            | {"scores": [dataclasses.asdict(score) for score in r.scores]}
            for r in self.rankings
        ]
        plain = {"holdout": self.holdout, "seed": self.seed, "filter": self.filter, "rows": self.rows}
        return rounded({**plain, "rankings": rankings, "skipped": self.skipped})


def compare(
    frame: pd.DataFrame,
    *,
    holdout: str = "N",
    laws: Iterable[str | Law] | None = None,
    response: str | None = None,
    seed: int = 0,
    folds: int = FOLDS,
    progress: Callable[[str], None] = lambda _: None,
    **options,
) -> Comparison:
    """Fit `laws` (None: all) on one part of `frame`, score them on the other (`analysis.diagnostics.holdout`), rank by
    RMSE.

    `response` narrows to laws of loss, gap or gap_qat; `seed` and `folds` are of the random hold-out. `options` are the
    fields of `Options` that concern a fit without intervals.

    Raises:
        InputError: unknown law, hold-out or response, a bad filter or option, or not one law can be scored.

    >>> from analysis import compare, read_table
    >>> frame = read_table("results/overtraining/runs.csv")
    >>> laws = ["chinchilla", "chinchilla_tied", "L = B * D**-beta + E"]
    >>> made = compare(frame, holdout="D", laws=laws)
    >>> made.to_frame()[["rank", "law", "rmse", "r2"]].round(2)
       rank              law  rmse    r2
    0     1       chinchilla  0.03  0.97
    1     2  chinchilla_tied  0.04  0.94
    2     3   L=B*D**-beta+E  0.19 -0.12
    """
    held_out = Holdout(name=holdout, seed=seed, folds=folds)
    if response is not None and response not in RESPONSES:
        raise InputError(f"response={response}: use one of {', '.join(RESPONSES)}")
    chosen = Options(bootstrap=0, seed=seed, **options)
    wanted = [named(law) if isinstance(law, str) else law for law in (LAWS if laws is None else laws)]
    labelled = frame if frame.index.is_unique else frame.reset_index(drop=True)
    rows = table.ordered(filters.filtered(labelled, chosen.filter))
    skipped: dict[str, str] = {}
    rankings = []
    for kind in RESPONSES if response is None else (response,):
        alone: dict[str, Selection] = {}
        for law in wanted:
            if law.response == kind:
                try:
                    alone[law.name] = select(law, rows, bits=chosen.bits)
                except InputError as fault:
                    skipped[law.name] = str(fault)
        candidates = Candidates(response=kind, rows=rows, alone=alone, holdout=held_out, options=chosen)
        why, ranked = {}, set()
        for shared, members in shared_rows({law.name: law for law in wanted}, alone, rows, chosen):
            try:
                ranking = rank(candidates, shared, members, progress)
            except InputError as fault:
                why |= dict.fromkeys(members, str(fault))
                continue
            rankings.append(ranking)
            ranked |= {score.law for score in ranking.scores}
            why |= ranking.excluded
        alike = "cannot be fitted again on the rows that it was fitted on"
        skipped |= {name: why.get(name, alike) for name in alone if name not in ranked}
    if not rankings:
        raise InputError(f"holdout={holdout}: no law can be compared ({_most_reasons(skipped, response)})")
    return Comparison(
        holdout=holdout,
        seed=seed,
        filter=chosen.filter or "",
        rows=len(rows),
        rankings=rankings,
        skipped=dict(sorted(skipped.items())),
    )


def by_reason(reasons: Mapping[str, str]) -> dict[str, list[str]]:
    """Why laws are not there -> the laws that it concerns."""
    laws: dict[str, list[str]] = {}
    for law, reason in reasons.items():
        laws.setdefault(reason.removeprefix(f"{law}: ").split("; it has ")[0], []).append(law)
    return laws


def _most_reasons(skipped: Mapping[str, str], response: str | None) -> str:
    """The most frequent reasons, for one line."""
    if not skipped:
        return f"none of {response} was asked for"
    if len(set(by_reason(skipped))) == 1:
        return next(iter(by_reason(skipped)))
    most = sorted(by_reason(skipped).items(), key=lambda pair: -len(pair[1]))
    named = [f"{', '.join(laws) if len(laws) < 3 else f'{len(laws)} laws'}: {why}" for why, laws in most[:REASONS]]
    others = sum(len(laws) for _, laws in most[REASONS:])
    return "; ".join(named) + f"; {others} others for other reasons, --laws LAW says which" * bool(others)
