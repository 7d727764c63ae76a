"""Figures as small as a word, as SVG inside the page: a number with its interval, or which conditions hold.

They have no text and take their colours from the page, so that they follow its light and dark.
"""

import math

from markupsafe import Markup, escape

from analysis.report.document.blocks import Marks, Span

WIDTH, HEIGHT = 116.0, 18.0  # pixels
EDGE = 5.0  # room for marks at the ends of the axis
BOX, STEP = 9.0, 15.0  # a condition, and from one to the next


def svg(figure: Span | Marks, seen: str) -> Markup:
    """The figure with its alternative text."""
    inside = _span(figure) if isinstance(figure, Span) else _marks(figure)
    return Markup(
        f'<svg class="small-figure" role="img" viewBox="0 0 {WIDTH:g} {HEIGHT:g}" width="{WIDTH:g}" '
        f'height="{HEIGHT:g}"><title>{escape(seen)}</title>{"".join(inside)}</svg>'
    )


def _span(span: Span) -> list[str]:
    """Where the claim wants the number as a field, our interval as a bar with a dot, the published number as a
    diamond."""
    wanted = span.wanted or (math.nan, math.nan)
    shown = [v for v in (span.value, span.low, span.high, span.paper, *wanted) if v is not None and math.isfinite(v)]
    least, most = min(shown), max(shown)
    room = 0.12 * (most - least) or max(abs(least), 1.0)
    least, most = least - room, most + room

    def x(value: float) -> float:
        place = EDGE + (WIDTH - 2 * EDGE) * (value - least) / (most - least)
        return round(min(max(place, 0.0), WIDTH), 1)

    middle, parts = HEIGHT / 2, []
    if span.wanted:
        ends = [x(v) if math.isfinite(v) else WIDTH * (v > 0) for v in wanted]
        parts.append(f'<rect class="wanted" x="{ends[0]:g}" width="{ends[1] - ends[0]:g}" height="{HEIGHT:g}"/>')
        parts += [f'<path class="limit" d="M{x(v):g} 0V{HEIGHT:g}"/>' for v in wanted if math.isfinite(v)]
    if math.isfinite(span.low) and math.isfinite(span.high) and span.low < span.high:
        parts.append(f'<path class="interval" d="M{x(span.low):g} {middle:g}H{x(span.high):g}"/>')
    if span.paper is not None and math.isfinite(span.paper):
        parts.append(f'<path class="published" d="M{x(span.paper):g} {middle - 5:g}l5 5l-5 5l-5 -5z"/>')
    parts.append(f'<circle class="ours" cx="{x(span.value):g}" cy="{middle:g}" r="3"/>')
    return parts


def _marks(marks: Marks) -> list[str]:
    """A box for each condition: filled where it holds, crossed out where it fails, empty where it is open."""
    top, parts = (HEIGHT - BOX) / 2, []
    for i, met in enumerate(marks.met):
        left = EDGE + i * STEP
        parts.append(
            f'<rect class="{"holds" if met else "box"}" x="{left:g}" y="{top:g}" width="{BOX:g}" height="{BOX:g}"/>'
        )
        if met is False:
            cross = f"M{left:g} {top:g}l{BOX:g} {BOX:g}M{left + BOX:g} {top:g}l-{BOX:g} {BOX:g}"
            parts.append(f'<path class="box" d="{cross}"/>')
    return parts
