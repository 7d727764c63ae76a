"""The document as one HTML file that needs nothing else: style and pictures are inside, and it runs no program.

Dark text on white, a measure of about 75 letters, wide tables that scroll by themselves; on paper the contents go
away and figures stay with their captions.
"""

import html
import re

from analysis.report.document.blocks import Block, Bullets, Document, Grid, Heading, Paragraph, Picture, Verdict
from analysis.report.verdicts import NOT_DECIDABLE, NOT_REPRODUCED, NOT_RUN, REPRODUCED

CLASSES = {REPRODUCED: "yes", NOT_REPRODUCED: "no", NOT_DECIDABLE: "open", NOT_RUN: "none"}
GREEK = {
    name: chr(code)
    for name, code in {
        "alpha": 0x3B1, "beta": 0x3B2, "gamma": 0x3B3, "delta": 0x3B4, "kappa": 0x3BA, "sigma": 0x3C3, "tau": 0x3C4,
    }.items()
}  # fmt: skip
SYMBOL = re.compile(
    rf"(?<![\w./=-])({'|'.join(GREEK)}|[A-Z]|n(?=_(?:w|a|kv)\b))(?:_([A-Za-z0-9*]+))?(?![\w(=-])|(?<![\w./=-])(sigma2)(?:_(\w+))?(?!\w)"
)
LONGEST = 34  # letters of a cell that is a number
MARKS = re.compile(r"(`[^`]*`|\*\*[^*]+\*\*|\[[^\]]+\]\(#[\w-]+\))")
STYLE = """
:root { --ink: #1b1b1b; --soft: #5a5a5a; --line: #d9d9d9; }
* { box-sizing: border-box; }
html { font-size: 17px; }
body { margin: 0; background: #fff; color: var(--ink); line-height: 1.55;
  font-family: Charter, "Bitstream Charter", "Source Serif 4", Georgia, "DejaVu Serif", serif; }
main { max-width: 50rem; margin: 0 auto; padding: 2.5rem 1.2rem 5rem; }
h1, h2, h3, nav, th, figcaption, .label, .verdict b, .mark {
  font-family: "Helvetica Neue", Arial, "DejaVu Sans", sans-serif; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 1.2rem; }
h2 { font-size: 1.35rem; line-height: 1.25; margin: 3.2rem 0 .8rem; padding-top: .8rem;
  border-top: 2px solid var(--ink); }
h3 { font-size: 1.06rem; line-height: 1.3; margin: 2.4rem 0 .6rem; }
p, ul { margin: .6rem 0; }
code { font-family: "DejaVu Sans Mono", Menlo, Consolas, monospace; font-size: .84em; background: #f4f4f4;
  padding: .05em .25em; }
a { color: #0b4f8a; text-decoration: none; } a:hover { text-decoration: underline; }
nav { font-size: .82rem; line-height: 1.5; border: 1px solid var(--line); padding: .8rem 1.1rem; margin: 1.5rem 0; }
nav ul { list-style: none; margin: 0; padding-left: 0; }
nav ul ul { padding-left: 1.1rem; columns: 2; column-gap: 2rem; }
nav > ul > li { margin: .3rem 0; }
.label { font-size: .8rem; font-weight: 600; color: var(--soft); margin-right: .5em; }
.rule { border-left: 3px solid var(--line); padding-left: .8rem; }
.small { font-size: .86rem; color: var(--soft); }
.wide { overflow-x: auto; margin: .9rem 0; }
table { border-collapse: collapse; width: 100%; font-size: .82rem; line-height: 1.4; }
caption { text-align: left; padding: .2rem 0 .4rem; color: var(--soft); }
th { text-align: left; font-weight: 600; font-size: .76rem; border-bottom: 1.5px solid var(--ink);
  padding: .3rem .6rem .3rem 0; vertical-align: bottom; }
td { border-bottom: 1px solid var(--line); padding: .3rem .6rem .3rem 0; vertical-align: top; }
td.number { font-variant-numeric: tabular-nums; white-space: nowrap; }
sub, sup { line-height: 0; font-size: .72em; }
figure { margin: 1.2rem 0; text-align: center; } figure img { max-width: 100%; height: auto; }
figcaption { font-size: .78rem; color: var(--soft); text-align: left; line-height: 1.45; margin-top: .3rem; }
.verdict { border: 1px solid; padding: .55rem .8rem; margin: 1rem 0; }
.verdict b, .mark { font-weight: 700; }
.yes { color: #14532d; border-color: #14532d; } .no { color: #8a1c1c; border-color: #8a1c1c; }
.open { color: #6b4e00; border-color: #6b4e00; } .none { color: #555; border-color: #999; }
.verdict span { color: var(--ink); }
@media (max-width: 40rem) { html { font-size: 16px; } nav ul ul { columns: 1; } }
@media print {
  html { font-size: 10.5pt; } main { max-width: none; padding: 0; } nav { display: none; } a { color: inherit; }
  h2 { break-after: avoid; } h3, p.rule { break-after: avoid; } figure, .verdict, tr { break-inside: avoid; }
  .wide { overflow: visible; } @page { margin: 18mm 16mm; }
}
"""


def render(document: Document) -> str:
    """The whole file."""
    before, after = document.around_contents
    body = "\n".join([*map(_block, before), _contents(document), *map(_block, after)])
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(document.title)}</title>\n<style>{STYLE}</style>\n</head>\n"
        f"<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def inline(text: str) -> str:
    """Text with its marks as HTML."""
    return "".join(_mark(part) for part in MARKS.split(text) if part)


def _mark(part: str) -> str:
    if part.startswith("`"):
        return f"<code>{html.escape(part[1:-1])}</code>"
    if part.startswith("**"):
        return f"<strong>{symbols(part[2:-2])}</strong>"
    if found := re.fullmatch(r"\[([^\]]+)\]\((#[\w-]+)\)", part):
        return f'<a href="{found[2]}">{symbols(found[1])}</a>'
    return symbols(part)


def symbols(text: str) -> str:
    """Escaped text with gamma_D as a Greek letter with its subscript; words are left as they are."""

    def set_(match: re.Match) -> str:
        if match[3]:
            return f"&sigma;<sup>2</sup>{_below(match[4])}"
        base, below = match[1], match[2]
        if base in GREEK:
            return f"{GREEK[base]}{_below(below)}"
        return f"<i>{base}</i>{_below(below)}" if below else match[0]

    return SYMBOL.sub(set_, html.escape(text, quote=False))


def _below(text: str | None) -> str:
    return f"<sub>{text}</sub>" if text else ""


def _contents(document: Document) -> str:
    if not document.contents:
        return ""
    lines, deep = ["<nav><ul>"], False
    for heading in document.contents:
        if heading.level == 3 and not deep:
            lines.append("<ul>")
        if heading.level == 2:
            lines.append("</ul></li>" if deep else "</li>" if len(lines) > 1 else "")
        deep = heading.level == 3
        close = "</li>" if deep else ""
        lines.append(f'<li><a href="#{heading.anchor}">{symbols(heading.text)}</a>{close}')
    return "".join([*lines, "</ul></li>" if deep else "</li>", "</ul></nav>"])


def _block(block: Block) -> str:
    match block:
        case Heading():
            return f'<h{block.level} id="{block.anchor}">{symbols(block.text)}</h{block.level}>'
        case Paragraph():
            label = f'<span class="label">{html.escape(block.label)}</span>' if block.label else ""
            kind = f' class="{block.kind}"' if block.kind else ""
            return f"<p{kind}>{label}{inline(block.text)}</p>"
        case Bullets():
            return f"<ul>{''.join(f'<li>{inline(item)}</li>' for item in block.items)}</ul>"
        case Verdict():
            kind = CLASSES[block.verdict]
            title = f"<b>{block.verdict.capitalize()}.</b>"
            return f'<div class="verdict {kind}">{title} <span>{inline(block.text)}</span></div>'
        case Picture():
            words = html.escape(re.sub(r"[`*]", "", block.caption), quote=True)
            image = f'<img alt="{words}" style="width:{block.inches:.2f}in" src="{block.uri}">'
            return f"<figure>{image}<figcaption>{inline(block.caption)}</figcaption></figure>"
        case Grid():
            return _grid(block)


def _grid(block: Grid) -> str:
    heads = "".join(f"<th>{symbols(head)}</th>" for head in block.heads)
    rows = "".join(f"<tr>{''.join(_cell(block, j, cell) for j, cell in enumerate(row))}</tr>" for row in block.rows)
    caption = f"<caption>{inline(block.caption)}</caption>" if block.caption else ""
    return f'<div class="wide"><table>{caption}<thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div>'


def _cell(block: Grid, column: int, text: str) -> str:
    if column == block.verdicts and text in CLASSES:
        return f'<td><span class="mark {CLASSES[text]}">{text}</span></td>'
    # Numbers with their intervals stay in one line.
    kind = ' class="number"' if re.match(r"-?[\d.]", text) and len(text) <= LONGEST else ""
    return f"<td{kind}>{inline(text)}</td>"
