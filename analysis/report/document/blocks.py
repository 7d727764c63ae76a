"""What a document consists of, before it is Markdown or HTML.

Text may hold `code` between backticks, **strong words** and [links](#anchor); symbols are written as in the laws
(gamma_D, N_eff, delta_PTQ), and HTML sets them as such.
"""

import base64
import dataclasses
import itertools
from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from analysis.figures import style

DPI = 170


@dataclasses.dataclass(frozen=True, kw_only=True)
class Heading:
    """Of level 1 to 3; those of level 2 and 3 are in the table of contents."""

    level: int
    text: str
    anchor: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Paragraph:
    """`label`: a word or two in front of it, set apart. `kind`: a class of paragraphs, for their look in HTML."""

    text: str
    label: str = ""
    kind: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bullets:
    items: tuple[str, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Grid:
    """A table. `verdicts`: the column whose cells are verdicts, which get a colour as well."""

    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str = ""
    verdicts: int | None = None

    @classmethod
    def of(cls, rows: Sequence[Mapping[str, str]], caption: str = "") -> "Grid":
        """From its rows, which hold cells by their heads."""
        return cls(heads=tuple(rows[0]), rows=tuple(tuple(row.values()) for row in rows), caption=caption)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Verdict:
    """The verdict on a claim, and in a line why."""

    verdict: str
    text: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Picture:
    """A figure as PNG bytes; `inches`: its width on paper."""

    name: str
    png: bytes
    inches: float
    caption: str

    @property
    def uri(self) -> str:
        """The picture itself as an address, which needs no file and no network."""
        return f"data:image/png;base64,{base64.b64encode(self.png).decode('ascii')}"


Block = Heading | Paragraph | Bullets | Grid | Verdict | Picture


@dataclasses.dataclass(frozen=True, kw_only=True)
class Document:
    title: str
    blocks: tuple[Block, ...]

    @property
    def sections(self) -> list[tuple[Heading, list[Heading]]]:
        """The table of contents: headings of level 2, each with those of level 3 below it."""
        contents: list[tuple[Heading, list[Heading]]] = []
        for block in self.blocks:
            if isinstance(block, Heading) and block.level == 2:
                contents.append((block, []))
            elif isinstance(block, Heading) and block.level == 3:
                contents[-1][1].append(block)
        return contents

    @property
    def opening(self) -> list[Block]:
        """What stands before the table of contents: all that comes before the first section."""
        first = [section for section, _ in self.sections[:1]]
        return list(itertools.takewhile(lambda block: block not in first, self.blocks))

    @property
    def body(self) -> tuple[Block, ...]:
        """What stands after it."""
        return self.blocks[len(self.opening) :]

    @property
    def pictures(self) -> list[Picture]:
        return [b for b in self.blocks if isinstance(b, Picture)]


def grid(heads: tuple[str, ...], rows: tuple[tuple[str, ...], ...], **more) -> Grid:
    """A table without the columns in which nothing stands."""
    kept = [j for j in range(len(heads)) if any(row[j] for row in rows)]
    return Grid(heads=tuple(heads[j] for j in kept), rows=tuple(tuple(row[j] for j in kept) for row in rows), **more)


def picture(figure: Figure, name: str, caption: str) -> Picture:
    """A figure drawn into memory; the same figure gives the same bytes."""
    png = style.image(figure, "png", dpi=DPI)
    return Picture(name=name, png=png, inches=float(figure.get_size_inches()[0]), caption=caption)
