"""Which published law predicts what it has not seen: every applicable law on the same rows, held out by N and by D."""

import dataclasses
import re
from collections.abc import Iterator

from analysis.diagnostics.compare import compare
from analysis.diagnostics.ranking import Ranking
from analysis.errors import InputError
from analysis.laws.registry import LAWS
from analysis.report.claims.tokens import RTN
from analysis.report.claims.training import TENSOR
from analysis.report.document.blocks import Block, Grid, Heading, Paragraph
from analysis.report.evidence.numbers import digits
from analysis.report.evidence.studies import grid_of
from analysis.report.evidence.tables import Rows, Tables


@dataclasses.dataclass(frozen=True, kw_only=True)
class Question:
    """A comparison of laws of one response on some rows. `low`: only of those that know training in low precision."""

    key: str
    title: str
    rows: Rows
    response: str
    holdouts: tuple[str, ...] = ("N", "D")
    low: bool = False

    @property
    def laws(self) -> list[str]:
        candidates = [law for law in LAWS.values() if law.response == self.response]
        return [law.name for law in candidates if law.quantized_training or not self.low]


HELD_OUT = {"N": "The largest N held out", "D": "The largest D held out", "random": "Chains held out in turn"}
QUESTIONS = (
    Question(key="laws-gap", title="What quantization after training costs", rows=RTN, response="gap"),
    Question(key="laws-loss", title="The loss in 16 bits", rows=RTN, response="loss"),
    Question(
        key="laws-low",
        title="The loss of training in low precision",
        rows=TENSOR,
        response="loss",
        holdouts=("N", "D", "random"),
        low=True,
    ),
    Question(
        key="laws-cost",
        title="What training in low precision costs",
        rows=TENSOR,
        response="gap_qat",
        holdouts=("N", "D", "random"),
    ),
)


def blocks(tables: Tables) -> Iterator[Block]:
    """The section on laws."""
    yield Heading(level=2, text="Which law predicts best", anchor="laws")
    yield Paragraph(
        text="Each law is fitted without the largest N, without the largest D, or without a fifth of the chains, and "
        "scored on what was held out; all laws of a table below saw the same rows. Errors are root mean squares in "
        "nats a token. `Wins` is how often chains, drawn anew, put a law before the best one. One row rarely settles "
        "a rank: read errors, not places."
    )
    for question in QUESTIONS:
        yield Heading(level=3, text=question.title, anchor=question.key)
        yield from _answers(question, tables)


def _answers(question: Question, tables: Tables) -> Iterator[Block]:
    studies = [study for study in question.rows.studies if tables.has(study)]
    if not studies:
        lacking = " and ".join(f"`make sweep S={study}`" for study in question.rows.studies)
        yield Paragraph(text=f"Not run yet: {lacking}.")
        return
    yield Paragraph(text=grid_of(tables, studies), kind="small")
    rows, best = tables.rows(question.rows), []
    for holdout in question.holdouts:
        tables.progress(f"  laws of {question.response}, held out by {holdout}")
        try:
            made = compare(rows, holdout=holdout, laws=question.laws, response=question.response, seed=tables.seed)
        except InputError as fault:
            yield Paragraph(text=f"{HELD_OUT[holdout]}: {fault.brief}.")
            continue
        # Rankings come with those of most laws first. Costs are of weights, of activations, of both: none compares.
        several = [r for r in made.rankings if len(r.scores) > 1 or r.response == "gap_qat"] or made.rankings[:1]
        for ranking in several:
            yield _grid(ranking, holdout)
        first, ranked = several[0].scores[0], [score for score in several[0].scores if score.rank]
        if len(ranked) > 1:
            best.append(f"`{first.law}` ({digits(first.measures.rmse)} nats), {_lower(HELD_OUT[holdout])}")
    if best:
        yield Paragraph(label="Best", text=f"{'; '.join(best)}.")


def _lower(text: str) -> str:
    return text[0].lower() + text[1:]


def _grid(ranking: Ranking, holdout: str) -> Grid:
    rows = []
    for score in ranking.scores:
        m = score.measures
        wins = "-" if score.upset != score.upset else f"{score.upset:.0%}"
        status = score.status if score.rank else "; ".join(score.notes)
        numbers = (f"{score.parameters}", digits(m.rmse), digits(m.bias), digits(m.r2), wins)
        source = re.split(r"[,;]| \(arXiv", LAWS[score.law].source)[0]
        rows.append((f"{score.rank or '-'}", f"`{score.law}`", source, *numbers, status))
    parts = "; ".join(f"{label}: fitted on {train} rows, scored on {test}" for label, train, test in ranking.folds)
    if len(ranking.folds) > 1:
        parts = f"{len(ranking.folds)} parts, {ranking.scores[0].measures.rows} rows scored in all"
    return Grid(
        heads=("rank", "law", "source", "parameters", "error", "bias", "R2", "wins", "fits"),
        rows=tuple(rows),
        caption=f"{HELD_OUT[holdout]}. {parts}.",
    )
