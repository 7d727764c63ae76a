"""The document as Markdown, with its pictures as files in a folder beside it."""

import re
from pathlib import Path

from analysis.files import replacing
from analysis.report.document.blocks import Block, Bullets, Document, Grid, Heading, Paragraph, Picture, Verdict


def render(document: Document, pictures: str) -> str:
    """Markdown text; `pictures` is the folder of the figures as seen from it."""
    contents = []
    for heading in document.contents:
        contents.append(f"{'  ' * (heading.level - 2)}- [{heading.text}](#{heading.anchor})")
    before, after = ([_block(block, pictures) for block in blocks] for blocks in document.around_contents)
    parts = [*before, "\n".join(contents), *after]
    return "\n\n".join(part for part in parts if part) + "\n"


def write_pictures(document: Document, folder: Path) -> list[Path]:
    """Write the figures as PNG files into `folder`, and remove those that are none of them any more."""
    paths = []
    for found in document.pictures:
        paths.append(folder / f"{found.name}.png")
        with replacing(paths[-1]) as temporary:
            temporary.write_bytes(found.png)
    for stale in set(folder.glob("*.png")) - set(paths):
        stale.unlink()
    return paths


def _block(block: Block, pictures: str) -> str:
    match block:
        case Heading():
            anchor = f'<a id="{block.anchor}"></a>\n\n' if block.level > 1 else ""
            return f"{anchor}{'#' * block.level} {block.text}"
        case Paragraph():
            return f"**{block.label}.** {block.text}" if block.label else block.text
        case Bullets():
            return "\n".join(f"- {item}" for item in block.items)
        case Verdict():
            return f"> **{block.verdict.capitalize()}.** {block.text}"
        case Picture():
            return f"![{_plain(block.caption)}]({pictures}/{block.name}.png)\n\n*{block.caption}*"
        case Grid():
            lines = [_row(block.heads), "|" + "---|" * len(block.heads), *map(_row, block.rows)]
            return ("\n".join([f"{block.caption}\n"] if block.caption else []) + "\n" + "\n".join(lines)).strip("\n")


def _row(cells: tuple[str, ...]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _plain(text: str) -> str:
    """Without marks, for what stands in for a picture."""
    return re.sub(r"[`*\[\]]", "", text)
