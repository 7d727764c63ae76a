"""How far the choice of rows moves the constants of the gap's law: filter, granularity and quantizer, each beside the
main fit, which a rule chose before there were rows."""

from collections.abc import Iterator

from analysis.errors import InputError
from analysis.figures.style import magnitude
from analysis.fitting.fit import Fit
from analysis.fitting.options import Options
from analysis.report.claims.tokens import LAW, RTN
from analysis.report.document.blocks import Block, Grid, Heading, Paragraph
from analysis.report.evidence.numbers import digits, of_fit
from analysis.report.evidence.other_rows import changed
from analysis.report.evidence.tables import Tables

SYMBOLS = ("gamma_D", "gamma_N", "gamma_post")
FILTERS = ((), ("4 to 6 bits",), ("no limit to the gap",))
CHOICES = (
    *FILTERS,
    *(("blocks of 16", *names) for names in FILTERS),
    *(names for method in ("GPTQ", "AWQ") for names in ((method,), (method, "4 to 6 bits"), (method, "blocks of 16"))),
)
"""Changes of the main rows, several at a time."""
MAIN = (
    "**The main fit** is chosen by a rule that stood before the runs: the quantizer that has nothing to choose "
    "(rounding to nearest), the paper's granularity (a scale a channel), the widths of its figures (3 to 6 bits), and "
    f"predicted gaps below {Options().gap_below:g} nats, for larger ones saturate. All other rows stand beside it, and "
    "no row of this table is chosen by what it says."
)


def blocks(tables: Tables) -> Iterator[Block]:
    """The section on rows."""
    yield Heading(level=2, text="How far the choice of rows moves the answer", anchor="rows")
    yield Paragraph(text=MAIN)
    try:
        main = tables.fit(LAW, RTN)
    except InputError as fault:
        yield Paragraph(text=f"{fault.brief[0].upper()}{fault.brief[1:]}.")
        return
    yield Grid.of([_line(tables, names) for names in CHOICES], f"`{LAW}` on the study `overtraining`, 95% intervals.")
    published = ", ".join(f"{symbol} = {digits(main.law.published[symbol])}" for symbol in SYMBOLS)
    yield Paragraph(text=f"The paper, by GPTQ: {published}.", kind="small")
    yield Paragraph(text=_reading(main))


def _line(tables: Tables, names: tuple[str, ...]) -> dict[str, str]:
    rows = changed(RTN, *names)
    line = {"rows": f"{rows.how}, {rows.limits}" + ("" if names else " (the main fit)")}
    try:
        fit = tables.fit(LAW, rows)
    except InputError as fault:
        return {**line, **dict.fromkeys(SYMBOLS, fault.brief), "fitted": "-", "at the smallest N": "-"}
    numbers = {symbol: of_fit(fit, symbol).text for symbol in SYMBOLS}
    return {**line, **numbers, "fitted": f"{fit.rows}", "at the smallest N": _widths(fit)}


def _widths(fit: Fit) -> str:
    """The rows that the fit has of its smallest N, by width."""
    frame = fit.fitted.frame
    counts = frame[frame["N"] == frame["N"].min()].groupby("P_post").size()
    return ", ".join(f"{count} of {bits:g} bits" for bits, count in counts.items())


def _reading(main: Fit) -> str:
    """What the filter takes from the sizes, in a sentence."""
    rows = main.fitted.frame
    lowest = Options().bits[0]
    without = [magnitude(size) for size, group in rows.groupby("N") if not (group["P_post"] == lowest).any()]
    missing = f"N = {', '.join(without)} has no row of {lowest:g} bits" if without else f"every N has {lowest:g} bits"
    return (
        f"In the main fit {missing}. The law has no term in P x N, so that sizes with other widths pull its constants: "
        "rows of 4 to 6 bits are the same widths at every N, and [the shape in bits](#bits) is given at each N."
    )
