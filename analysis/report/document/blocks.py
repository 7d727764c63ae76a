"""What a document consists of, before it is Markdown or HTML.

Text may hold `code` between backticks, **strong words** and [links](#anchor); symbols are written as in the laws
(gamma_D, N_eff, delta_PTQ), and HTML sets them as such.
"""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from analysis.figures import style


@dataclasses.dataclass(frozen=True, kw_only=True)
class Heading:
    """Of level 1 to 3; those of level 2 and 3 are in the table of contents. HTML folds what stands below one of level
    3."""

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
    """A table."""

    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str = ""

    @classmethod
    def of(cls, rows: Sequence[Mapping[str, str]], caption: str = "") -> "Grid":
        """From its rows, which hold cells by their heads."""
        return cls(heads=tuple(rows[0]), rows=tuple(tuple(row.values()) for row in rows), caption=caption)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Verdict:
    """A verdict on a claim, and in a line why. `aspect`: what of the claim it judges."""

    verdict: str
    text: str
    aspect: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Span:
    """A number with its interval, drawn as small as a word. `wanted`: where the claim wants it, infinite to a side that
    is open; `paper`: the published number. An interval that is not finite is not drawn."""

    value: float
    low: float
    high: float
    wanted: tuple[float, float] | None = None
    paper: float | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Marks:
    """What is yes, no or open (None), drawn as small as a word."""

    met: tuple[bool | None, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Answer:
    """A row of the answers. `verdicts` by what they judge. `numbers`: what it is, ours and the published one, of one or
    more numbers. `figure` shows the first of them, `seen` says in words what it shows."""

    title: str
    anchor: str
    verdicts: dict[str, str]
    numbers: tuple[tuple[str, str, str], ...]
    figure: Span | Marks | None = None
    seen: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Answers:
    """All claims at a glance, in groups with a title."""

    groups: tuple[tuple[str, tuple[Answer, ...]], ...]

    @property
    def aspects(self) -> tuple[str, ...]:
        """What verdicts judge, in order."""
        return tuple(dict.fromkeys(aspect for _, answers in self.groups for a in answers for aspect in a.verdicts))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Picture:
    """A figure as an SVG file. `inches`: its width and height; `seen`: what it shows, for those who cannot see it."""

    name: str
    svg: bytes
    inches: tuple[float, float]
    caption: str
    seen: str

    @property
    def alternative(self) -> str:
        """The text that stands for the picture: what is drawn, then what it shows."""
        return " ".join(filter(None, (self.caption, self.seen)))


Block = Heading | Paragraph | Bullets | Grid | Verdict | Answers | Picture


@dataclasses.dataclass(frozen=True)
class Part:
    """A heading with what stands below it, and the parts of the next level."""

    heading: Heading
    blocks: tuple[Block, ...]
    parts: tuple["Part", ...] = ()

    @property
    def verdicts(self) -> list[Verdict]:
        return [block for block in self.blocks if isinstance(block, Verdict)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Document:
    title: str
    blocks: tuple[Block, ...]

    @property
    def opening(self) -> tuple[Block, ...]:
        """What stands before the first section."""
        return _below(self.blocks, 2)[0]

    @property
    def sections(self) -> tuple[Part, ...]:
        """The sections, each with its parts."""
        return tuple(Part(section.heading, *_below(section.blocks, 3)) for section in _below(self.blocks, 2)[1])

    @property
    def pictures(self) -> list[Picture]:
        return [b for b in self.blocks if isinstance(b, Picture)]


def _below(blocks: tuple[Block, ...], level: int) -> tuple[tuple[Block, ...], tuple[Part, ...]]:
    """What stands before the first heading of this level, and what stands below each."""
    places = [i for i, block in enumerate(blocks) if isinstance(block, Heading) and block.level == level]
    ends = itertools.pairwise([*places, len(blocks)])
    return blocks[: [*places, len(blocks)][0]], tuple(Part(blocks[i], blocks[i + 1 : j]) for i, j in ends)


def grid(heads: tuple[str, ...], rows: tuple[tuple[str, ...], ...], **more) -> Grid:
    """A table without the columns in which nothing stands."""
    kept = [j for j in range(len(heads)) if any(row[j] for row in rows)]
    return Grid(heads=tuple(heads[j] for j in kept), rows=tuple(tuple(row[j] for j in kept) for row in rows), **more)


def picture(figure: Figure, name: str, caption: str, seen: str) -> Picture:
    """A figure drawn into memory; the same figure gives the same bytes."""
    width, height = figure.get_size_inches()
    return Picture(
        name=name, svg=style.image(figure, "svg"), inches=(float(width), float(height)), caption=caption, seen=seen
    )
