"""The document as Markdown and as HTML, with its pictures as files in a folder beside both. The page loads nothing from
elsewhere and runs no program.

Text of blocks is Markdown with `code`, **strong words** and [links](#anchor) alone; arXiv numbers become links. In
HTML, symbols are set as such, and all else is escaped; in Markdown, what would be HTML.
"""

import re
from html import escape
from html.entities import name2codepoint
from pathlib import Path

import jinja2
from markdown_it import MarkdownIt
from markupsafe import Markup

from analysis.report.document.blocks import Block, Document
from analysis.report.document.small import svg
from analysis.report.verdicts import (
    AGREES,
    DIFFERS,
    NONE_PUBLISHED,
    NOT_DECIDABLE,
    NOT_DECIDED,
    NOT_REPRODUCED,
    NOT_RUN,
    REPRODUCED,
)

CLASSES = {
    **{REPRODUCED: "yes", NOT_REPRODUCED: "no", NOT_DECIDABLE: "open", NOT_RUN: "none"},
    **{AGREES: "yes", DIFFERS: "no", NOT_DECIDED: "open", NONE_PUBLISHED: "none"},
}
GREEK = {name: chr(name2codepoint[name]) for name in ("alpha", "beta", "gamma", "delta", "kappa", "sigma", "tau")}
SYMBOL = re.compile(
    rf"(?<![\w./=-])({'|'.join(GREEK)}|[A-Z]|n(?=_(?:w|a|kv)\b))(?:_([A-Za-z0-9*]+))?(?![\w(=-])|(?<![\w./=-])(sigma2)(?:_(\w+))?(?!\w)"
)
ARXIV = re.compile(r"(?<![\[/\w])arXiv (\d{4}\.\d{4,5})(?![\]\d])")
LONGEST = 34  # letters of a cell that is a number, which stays in one line
NARROW = 3  # columns of a table that fit a telephone; the rows of wider ones become blocks there
PIXELS = 96  # an inch
UNBROKEN = re.compile(r"[^\s&;<>]{21,}")  # a word, which would not fit a telephone


def markdown(document: Document, pictures: str) -> str:
    """Markdown text; `pictures` is the folder of the figures as seen from it."""
    return TEMPLATES.get_template("report.md.jinja").render(document=document, pictures=pictures).rstrip("\n") + "\n"


def html(document: Document, pictures: str) -> str:
    """The whole file; `pictures` likewise."""
    look = {"classes": CLASSES, "narrow": NARROW, "inch": PIXELS}
    return TEMPLATES.get_template("report.html.jinja").render(document=document, pictures=pictures, **look)


def inline(text: str) -> Markup:
    """Text of a block as HTML."""
    return Markup(INLINE.renderInline(linked(text)))


def linked(text: str) -> str:
    """Text with arXiv numbers as links."""
    return ARXIV.sub(r"[\g<0>](https://arxiv.org/abs/\1)", text)


def safe(text: str) -> str:
    """Text for Markdown, in which no HTML is left: < is escaped outside of `code`."""
    return "`".join(part if i % 2 else part.replace("<", "&lt;") for i, part in enumerate(linked(text).split("`")))


def plain(text: str) -> str:
    """Text without marks, for where there can be none."""
    return re.sub(r"\]\([^)]*\)|[`*\[\]]", "", text)


def symbols(text: str) -> str:
    """Escaped text with gamma_D as a Greek letter with its subscript; words are left as they are."""

    def symbol(match: re.Match) -> str:
        letter, index, square, of_square = match.groups()
        if square:
            return f"&sigma;<sup>2</sup>{_subscript(of_square)}"
        if letter in GREEK:
            return f"{GREEK[letter]}{_subscript(index)}"
        return f"<i>{letter}</i>{_subscript(index)}" if index else match[0]

    return SYMBOL.sub(symbol, breakable(text))


def breakable(text: str) -> str:
    """Escaped text whose longest words may be broken."""
    return UNBROKEN.sub(lambda word: re.sub(r".{20}(?=.)", r"\g<0><wbr>", word[0]), escape(text, quote=False))


def _subscript(text: str | None) -> str:
    return f"<sub>{text}</sub>" if text else ""


INLINE = MarkdownIt("zero").enable(["backticks", "emphasis", "link"])
INLINE.add_render_rule(
    "code_inline",
    lambda self, tokens, place, options, env: f"<code>{breakable(tokens[place].content)}</code>",
)
INLINE.add_render_rule("text", lambda self, tokens, place, options, env: symbols(tokens[place].content))
TEMPLATES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=lambda name: ".html" in name,
    keep_trailing_newline=False,
)
TEMPLATES.filters |= {"inline": inline, "safe_text": safe, "plain": plain, "small": svg}
TEMPLATES.tests |= {kind.__name__.lower(): lambda b, kind=kind: isinstance(b, kind) for kind in Block.__args__}
TEMPLATES.tests["number"] = lambda cell: re.match(r"-?[\d.]", cell) and len(cell) <= LONGEST
