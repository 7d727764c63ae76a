"""What a document consists of, before it is Markdown or HTML.

Text may hold `code` between backticks, **strong words** and [links](#anchor); symbols are written as in the laws
(gamma_D, N_eff, delta_PTQ), and HTML sets them as such.
"""

import base64
import dataclasses
import io

import matplotlib
from matplotlib.figure import Figure

from analysis.figures import style

DPI = 170


@dataclasses.dataclass(frozen=True, kw_only=True)
class Heading:
    """Of level 1 to 3; those of level 2 and 3 are in the table of contents, unless `listed` is off."""

    level: int
    text: str
    anchor: str
    listed: bool = True


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
    """A table. `verdicts`: the column whose cells are verdicts, which get a colour besides their words."""

    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str = ""
    verdicts: int | None = None


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
    def contents(self) -> list[Heading]:
        return [b for b in self.blocks if isinstance(b, Heading) and b.level > 1 and b.listed]

    @property
    def around_contents(self) -> tuple[tuple[Block, ...], tuple[Block, ...]]:
        """What stands before and after the table of contents: it comes before the first section."""
        first = next((i for i, b in enumerate(self.blocks) if isinstance(b, Heading) and b.level > 1), len(self.blocks))
        return self.blocks[:first], self.blocks[first:]

    @property
    def pictures(self) -> list[Picture]:
        return [b for b in self.blocks if isinstance(b, Picture)]


def grid(heads: tuple[str, ...], rows: tuple[tuple[str, ...], ...], **more) -> Grid:
    """A table without the columns in which nothing stands."""
    kept = [j for j in range(len(heads)) if any(row[j] for row in rows)]
    return Grid(heads=tuple(heads[j] for j in kept), rows=tuple(tuple(row[j] for j in kept) for row in rows), **more)


def picture(figure: Figure, name: str, caption: str) -> Picture:
    """A figure drawn into memory; the same figure gives the same bytes."""
    with matplotlib.rc_context(style.RC), io.BytesIO() as buffer:
        figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
        return Picture(name=name, png=buffer.getvalue(), inches=float(figure.get_size_inches()[0]), caption=caption)
