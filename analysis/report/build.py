"""The report: claims are judged one after the other, and what came out becomes a document and two files.

Order of a claim's section: what was said, how it is tested, the rule, and only then the numbers and the verdict.
"""

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from analysis.errors import InputError
from analysis.files import remove, write_together
from analysis.report import comparison, limits
from analysis.report.claims import article, best, bits, controls, schedule, tokens, training
from analysis.report.claims.claim import Claim, Outcome, judge
from analysis.report.document import render
from analysis.report.document.blocks import Block, Document, Grid, Heading, Paragraph, Verdict, grid, picture
from analysis.report.evidence import studies
from analysis.report.evidence.numbers import digits
from analysis.report.evidence.tables import Tables
from analysis.report.verdicts import NOT_DECIDABLE, NOT_REPRODUCED, NOT_RUN, REPRODUCED

TITLE = "Scaling laws for precision, on models that anyone can train"
THEMES: tuple[tuple[str, str, tuple[Claim, ...]], ...] = (
    ("after", "Quantization after training", (*tokens.CLAIMS, *bits.CLAIMS)),
    ("during", "Training in low precision", (*training.CLAIMS, *best.CLAIMS)),
    ("schedule", "Tokens, decay or the optimizer's memory", schedule.CLAIMS),
    ("controls", "Formats, text, seeds and arithmetic", controls.CLAIMS),
    ("article", "In the words of the press", article.CLAIMS),
)
CLAIMS = tuple(claim for _, _, claims in THEMES for claim in claims)
PICTURES = "report.figures"
SYMBOLS = ("kappa", "ln")
SHORT = 60  # letters of a reading that the table of verdicts has room for


@dataclasses.dataclass(frozen=True, kw_only=True)
class Made:
    """What was written, and what came out of each claim."""

    markdown: Path
    html: Path
    outcomes: list[Outcome]


def make(results: Path, out: Path, *, draws: int, seed: int, progress: Callable[[str], None]) -> Made:
    """Read the tables below `results` and write report.md, report.html and the folder report.figures into `out`.

    Raises:
        InputError: no such folder, or `out` cannot be written to.
    """
    if not results.is_dir():
        raise InputError(f"{results}: no such folder; expected one with STUDY/runs.csv in it")
    tables = Tables(results, studies.STUDIES, draws=draws, seed=seed, progress=progress)
    outcomes = judged(tables)
    document = Document(title=TITLE, blocks=tuple(_blocks(tables, outcomes)))
    texts = {out / "report.md": render.markdown(document, PICTURES), out / "report.html": render.html(document)}
    pictures = {out / PICTURES / f"{picture.name}.png": picture.png for picture in document.pictures}
    write_together(texts | pictures)
    for stale in {*(out / PICTURES).glob("*.png")} - {*pictures}:
        remove(stale)
    return Made(markdown=out / "report.md", html=out / "report.html", outcomes=outcomes)


def judged(tables: Tables) -> list[Outcome]:
    """The outcome of every claim, in order."""
    outcomes: dict[str, Outcome] = {}
    for place, claim in enumerate(CLAIMS, start=1):
        tables.progress(f"{place} of {len(CLAIMS)}: {claim.title}")
        outcomes[claim.key] = judge(claim, tables, outcomes)
    return list(outcomes.values())


def _blocks(tables: Tables, outcomes: list[Outcome]) -> Iterator[Block]:
    by_key = {outcome.claim.key: outcome for outcome in outcomes}
    yield Heading(level=1, text=TITLE, anchor="top")
    yield Paragraph(
        text="Kumar et al. 2024, `Scaling Laws for Precision` (arXiv 2411.04330), found that quantizing a model hurts "
        "more the more tokens it has seen, and that training in low precision acts like having fewer parameters. "
        "Neither code nor runs were released. This report tests their claims, claims against them, and what the press "
        "made of them, on models of our own. Every number comes from the tables in `results/`; every verdict follows "
        "from a rule that stands before the number. Intervals are of 95%."
    )
    yield Paragraph(text=_summary(outcomes))
    yield Heading(level=2, text="What was run", anchor="runs")
    yield Paragraph(text=studies.total(tables))
    yield studies.overview(tables)
    if tables.frames:
        yield studies.provenance(tables)
    yield Heading(level=2, text="Verdicts", anchor="verdicts")
    yield Paragraph(
        text="Reproduced: all intervals of the rule lie where the claim says; conditions that are lenient, as their "
        "rules say, are only not ruled out. Not reproduced: one lies wholly elsewhere. Not decidable: the intervals "
        "are too wide to decide, or the table does not determine the number. Rules ask for signs and forms; the "
        "paper's constants, which depend on model, text and tokenizer, stand beside ours. Of so many intervals of 95% "
        "one or two will miss the truth: read neighbouring claims together."
    )
    yield Grid(
        heads=("claim", "verdict", "decisive number"),
        rows=tuple((f"[{o.claim.title}](#{o.claim.key})", o.verdict, _short(o)) for o in outcomes),
        verdicts=1,
    )
    for anchor, title, claims in THEMES:
        yield Heading(level=2, text=title, anchor=anchor)
        for claim in claims:
            yield from _section(by_key[claim.key], tables)
    yield from comparison.blocks(tables)
    yield from limits.blocks(tables, outcomes)


def _sentence(text: str) -> str:
    """With a capital, unless it begins with a symbol."""
    word = text.split(" ", 1)[0]
    return text[0].upper() + text[1:] if word.isalpha() and len(word) > 1 and word not in SYMBOLS else text


def _short(outcome: Outcome) -> str:
    reading = outcome.finding.reading
    return f"{outcome.line}. {reading}" if 0 < len(reading) <= SHORT else outcome.line


def _summary(outcomes: list[Outcome]) -> str:
    counts = Counter(o.verdict for o in outcomes if not o.claim.follows)
    parts = [f"{counts[v]} {v}" for v in (REPRODUCED, NOT_REPRODUCED, NOT_DECIDABLE, NOT_RUN) if counts[v]]
    again = sum(bool(o.claim.follows) for o in outcomes)
    return f"Of {counts.total()} claims: {', '.join(parts)}. {again} more repeat one of them in the words of the press."


def _section(outcome: Outcome, tables: Tables) -> Iterator[Block]:
    claim, finding = outcome.claim, outcome.finding
    yield Heading(level=3, text=claim.title, anchor=claim.key)
    yield Paragraph(label="Said", text=f"{claim.statement} ({claim.source}.)")
    yield Paragraph(label="Tested", text=claim.how)
    if claim.follows:
        yield Verdict(verdict=outcome.verdict, text=_sentence(f"{outcome.line}."))
        return
    yield Paragraph(label="Rule", text=claim.rule.text, kind="rule")
    if not outcome.why:
        yield Paragraph(text=studies.grid_of(tables, claim.uses), kind="small")
        yield _numbers(outcome)
    yield Verdict(verdict=outcome.verdict, text=_sentence(f"{outcome.line}. {finding.reading}".strip()))
    if outcome.drawn is not None:
        yield picture(outcome.drawn.figure, claim.key, finding.caption)
    yield from finding.grids
    if finding.shown:
        rows = tuple((name, number.text, _paper(number)) for name, number in finding.shown.items())
        yield grid(("also estimated", "ours, 95%", "paper"), rows)
    for note in finding.notes:
        yield Paragraph(text=note, kind="small")


def _numbers(outcome: Outcome) -> Grid:
    rows = []
    for condition, met in zip(outcome.claim.rule.conditions, outcome.met, strict=True):
        number = outcome.finding.numbers.get(condition.number)
        if number is None:
            flag = outcome.finding.flags.get(condition.number, "not estimated")
            rows.append((condition.what, flag, condition.where, met, "", ""))
        else:
            rows.append((condition.what, number.text, condition.where, met, _paper(number), number.note))
    return grid(("number", "ours, 95%", "wanted", "holds", "paper", "how"), tuple(rows))


def _paper(number) -> str:
    return "" if number.paper is None else digits(number.paper)
