"""What could not be tested, and why; and what tables that are there lack of their studies."""

import math
from collections.abc import Iterator

from analysis.errors import InputError
from analysis.figures.style import magnitude
from analysis.laws.chinchilla import KUMAR
from analysis.report.claims.claim import Outcome
from analysis.report.claims.tokens import loss_fit
from analysis.report.document.blocks import Block, Bullets, Heading, Paragraph
from analysis.report.evidence.numbers import digits, of_fit
from analysis.report.evidence.tables import Tables, ends, full_precision
from analysis.report.verdicts import NOT_RUN

PAPER_N, PAPER_D = (30e6, 220e6), (1.5e9, 26e9)  # sizes and tokens of the paper's grid


def blocks(tables: Tables, outcomes: list[Outcome]) -> Iterator[Block]:
    """The last section."""
    yield Heading(level=2, text="What could not be tested, and why", anchor="limits")
    yield Bullets(items=(*_scale(tables), *_identified(tables), *ALWAYS))
    waiting = [o for o in outcomes if o.direction.verdict == NOT_RUN]
    if waiting:
        yield Paragraph(text="Claims whose studies have not been run:")
        yield Bullets(items=tuple(f"[{o.claim.title}](#{o.claim.key}): {o.why}" for o in waiting))


def _scale(tables: Tables) -> Iterator[str]:
    if not tables.frames:
        return
    size = max(frame["N"].max() for frame in tables.frames.values())
    tokens = max(frame["D"].max() for frame in tables.frames.values())
    yield (
        f"**Scale.** The largest model here has {magnitude(size)} parameters and the longest run {magnitude(tokens)} "
        f"tokens; the paper's grid is {magnitude(PAPER_N[0])} to {magnitude(PAPER_N[1])} and {magnitude(PAPER_D[0])} "
        f"to {magnitude(PAPER_D[1])}. Directions may carry over, constants do not: they depend on tokenizer, text, "
        "width and optimizer, and the paper itself calls its own unlikely to be useful elsewhere."
    )
    rows = [ends(full_precision(frame)) for frame in tables.frames.values()]
    ratio = [(r["D"] / r["N"]).agg(["min", "max"]) for r in rows if len(r)]
    low, high = min(r["min"] for r in ratio), max(r["max"] for r in ratio)
    yield (
        f"**Tokens a parameter** go from {digits(low)} to {digits(high)}. The paper's curves of the best precision at "
        "fixed N (8 to 405 billion parameters, up to 10^15 tokens, Fig. 6 right) are extrapolations of its law and "
        "cannot be checked by runs at any scale that is open to us."
    )


def _identified(tables: Tables) -> Iterator[str]:
    try:
        fit = loss_fit(tables)
    except InputError:
        return
    constants = ", ".join(f"{s} = {of_fit(fit, s).text}" for s in ("E", "alpha", "beta") if s in fit.params)
    low, high = fit.interval("E")
    room = "" if math.isnan(low) else f" The interval of E spans {high - low:.2f} nats."
    yield (
        f"**E and alpha.** On our losses in 16 bits {constants} (the paper: E = {KUMAR['E']:.2f}, alpha = beta = "
        f"{KUMAR['alpha']:.2f}, on another text and tokenizer).{room} Grids of models this small trade E off against "
        "the exponents, so gaps are reported before anything that leans on them: N_eff, D_crit and the best plan."
    )


ALWAYS = (
    "**Hardware.** Quantization is simulated: values are rounded, products are not computed in few bits. The cost "
    "model, operations in proportion to N P, is the paper's assumption; real gains per halving of bits are below two.",
    "**Benchmarks.** Loss on held-out text is all that is measured, no downstream task.",
    "**The paper's corpus and architecture.** Dolma and OLMo-style models with a tokenizer of unknown size; ours are "
    "bytes of Python source (and English prose where said) in small transformers of the same family.",
    "**One optimizer.** AdamW, one warm-up rule, one rule for the learning rate by width; how far the gap depends on "
    "them is asked for in weight decay, batch and rate only.",
    "**C_w, C_a, C_kv** of the unified law were not published, so there is nothing to compare ours with; nor are "
    "constants for AWQ and rounding to nearest, or any error of the paper's constants.",
    "**Checkpoints of large models** (Pythia, OLMo, SmolLM), on which Ouyang et al. and Catalan-Tatjer et al. rest, "
    "are not part of the tables.",
)
