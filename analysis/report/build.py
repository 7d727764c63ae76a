"""The report: claims are judged one after the other, and what came out becomes a document and two files.

Order of a claim's section: what was said, how it is tested, the rule, and only then the numbers and the verdict.
"""

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from analysis.errors import InputError
from analysis.files import remove, write_together
from analysis.report import answers, comparison, limits, sensitivity
from analysis.report.claims import article, best, bits, controls, formats, product, schedule, tokens, training
from analysis.report.claims.claim import PAPER, Claim, Outcome, judge
from analysis.report.document import render
from analysis.report.document.blocks import Block, Document, Grid, Heading, Paragraph, Verdict, grid, picture
from analysis.report.evidence import studies
from analysis.report.evidence.rules import FACTOR
from analysis.report.evidence.tables import Tables
from analysis.report.verdicts import DIRECTIONS, SIZES, Judgement

TITLE = "Scaling laws for precision, on models that anyone can train"
THEMES: tuple[tuple[str, str, tuple[Claim, ...]], ...] = (
    ("after", "Quantization after training", (*tokens.CLAIMS, *bits.CLAIMS)),
    ("during", "Training in low precision", (*training.CLAIMS, *product.CLAIMS, *best.CLAIMS)),
    ("schedule", "Tokens, decay or the optimizer's memory", schedule.CLAIMS),
    ("controls", "Formats, text, seeds and arithmetic", (*formats.CLAIMS, *controls.CLAIMS)),
    ("article", "In the words of the press", article.CLAIMS),
)
CLAIMS = tuple(claim for _, _, claims in THEMES for claim in claims)
RULES_CHANGED = (
    "**Changed after the data were seen**: the verdicts on sizes; that a number whose sign changes with N is judged "
    "at each N and has no mean; that the status of a fit (`at_bound`) decides nothing; and estimators, where a better"
    " one was found: geometric means over pairs in place of ratios of sums, which 3 bits rule ([bits](#bits), "
    "[granularity](#granularity), [robustness](#robust), [the unified law](#unified)), both texts cut at the same "
    "cells ([corpus](#corpus)), and the scatter of sizes in what is predicted of a new one ([predicted](#predicted))."
    " Their rules say so. Whether [parts multiply](#product) was open on `joint`; the rule that stands here was "
    "stated before the runs of `factorial`. [Seeds](#seeds) are judged by the rule that stood before, and a better "
    "estimator stands beside it. A verdict that is decided by such a change is weaker than one whose rule stood "
    "before its runs, as all others did."
)
PICTURES = "report.figures"
ARTICLE = "https://arxiv.org/abs/2411.04330"
SYMBOLS = ("kappa", "ln")
KEY = (
    "Small figures: the number that decides with its interval of 95%; shaded is where the claim wants it, a diamond is "
    "the published number. Boxes are conditions of a rule: filled where one holds, crossed out where it fails, empty "
    "where it is open."
)


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
    texts = {
        out / "report.md": render.markdown(document, PICTURES),
        out / "report.html": render.html(document, PICTURES),
    }
    pictures = {out / PICTURES / f"{picture.name}.svg": picture.svg for picture in document.pictures}
    write_together(texts | pictures)
    for stale in {*(out / PICTURES).glob("*.[sp][vn]g")} - {*pictures}:
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
        text=f"{PAPER} 2024, *Scaling Laws for Precision* (arXiv 2411.04330), released neither code nor runs. Their "
        "claims, claims against them and what the press made of them, tested on models of our own, from the tables in "
        "`results/` alone."
    )
    yield Paragraph(text=_summary(outcomes))
    yield Heading(level=2, text="The claims, and what became of them", anchor="verdicts")
    yield answers.answers(THEMES, by_key)
    yield Paragraph(text=KEY, kind="small")
    yield Heading(level=3, text="How to read the verdicts", anchor="reading")
    yield Paragraph(
        text="**Direction**, a sign or a form. Reproduced: all intervals of the rule lie where the claim says; "
        "conditions that are lenient, as their rules say, are only not ruled out. Not reproduced: one lies wholly "
        "elsewhere. Not decidable: the intervals are too wide to decide, or the table does not determine the number. "
        f"**Size**, beside the published number, which depends on model, text and tokenizer. Agrees: the interval lies "
        f"within a factor of {FACTOR:g} of it. Differs: it lies wholly outside. Of so many intervals of 95% one or two "
        "will miss the truth: read neighbouring claims together."
    )
    yield Paragraph(text=RULES_CHANGED)
    for anchor, title, claims in THEMES:
        yield Heading(level=2, text=title, anchor=anchor)
        for claim in claims:
            yield from _section(by_key[claim.key], tables)
    yield from sensitivity.blocks(tables)
    yield from comparison.blocks(tables)
    yield Heading(level=2, text="What was run", anchor="runs")
    yield Paragraph(text=studies.total(tables))
    yield Heading(level=3, text="The studies", anchor="studies")
    yield studies.overview(tables)
    if tables.frames:
        yield studies.provenance(tables)
    yield from limits.blocks(tables, outcomes)


def _sentence(text: str) -> str:
    """With a capital, unless it begins with a symbol."""
    word = text.split(" ", 1)[0]
    return text[0].upper() + text[1:] if word.isalpha() and len(word) > 1 and word not in SYMBOLS else text


def _cited(source: str) -> str:
    """The source with a link to the paper that most claims are from."""
    return source.replace(PAPER, f"[{PAPER}]({ARTICLE})", 1) if source.startswith(PAPER) else source


def _summary(outcomes: list[Outcome]) -> str:
    own = [o for o in outcomes if not o.claim.follows]
    again = len(outcomes) - len(own)
    direction = _counted([o.direction for o in own], DIRECTIONS)
    size = _counted([o.size for o in own], SIZES)
    return (
        f"Of {len(own)} claims: in direction {direction}; in size {size}. {again} more repeat one of them in the "
        "words of the press."
    )


def _counted(judgements: list[Judgement], words: tuple[str, ...]) -> str:
    counts = Counter(judgement.verdict for judgement in judgements)
    return ", ".join(f"{counts[word]} {word}" for word in words if counts[word])


def _section(outcome: Outcome, tables: Tables) -> Iterator[Block]:
    claim, finding = outcome.claim, outcome.finding
    yield Heading(level=3, text=claim.title, anchor=claim.key)
    yield Paragraph(label="Said", text=f"{claim.statement} ({_cited(claim.source)}.)")
    yield Paragraph(label="Tested", text=claim.how)
    if claim.follows:
        yield from _verdicts(outcome)
        return
    yield Paragraph(label="Rule", text=claim.rule.text, kind="rule")
    if not outcome.why:
        yield Paragraph(text=studies.grid_of(tables, claim.uses), kind="small")
        yield _numbers(outcome)
    yield from _verdicts(outcome, finding.reading)
    if outcome.again:
        yield _again(outcome)
    if outcome.drawn is not None:
        yield picture(outcome.drawn.figure, claim.key, finding.caption, _sentence(f"{outcome.direction.reason}."))
    yield from finding.grids
    if finding.shown:
        rows = tuple((name, number.text, answers.paper(number)) for name, number in finding.shown.items())
        yield grid(("also estimated", "ours, 95%", "paper"), rows)
    for note in finding.notes:
        yield Paragraph(text=note, kind="small")


def _verdicts(outcome: Outcome, reading: str = "") -> Iterator[Verdict]:
    """Both verdicts with their reasons; the second says which of them other rows change."""
    direction, size = outcome.direction, outcome.size
    yield Verdict(
        aspect="direction", verdict=direction.verdict, text=f"{_sentence(direction.reason)}. {reading}".strip()
    )
    yield Verdict(aspect="size", verdict=size.verdict, text=f"{_sentence(size.reason)}. {outcome.flips}".strip())


def _again(outcome: Outcome) -> Grid:
    """The verdicts on other rows."""
    rows = {"the rows of the rule": outcome, **outcome.again}
    return Grid.of(
        [
            {
                "rows": name,
                "direction": judged.direction.verdict,
                "decisive number": judged.direction.reason,
                "size": judged.size.verdict,
                "beside the published one": judged.size.reason,
            }
            for name, judged in rows.items()
        ],
        "How far other rows change the verdicts.",
    )


def _numbers(outcome: Outcome) -> Grid:
    rows = []
    for condition, met in zip(outcome.claim.rule.conditions, outcome.met, strict=True):
        number = outcome.finding.numbers.get(condition.number)
        if number is None:
            flag = outcome.finding.flags.get(condition.number, "not estimated")
            rows.append((condition.what, flag, condition.where, met, "", ""))
        else:
            rows.append((condition.what, number.text, condition.where, met, answers.paper(number), number.note))
    return grid(("number", "ours, 95%", "wanted", "holds", "paper", "how"), tuple(rows))
