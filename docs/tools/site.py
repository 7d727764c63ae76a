"""Hooks of mkdocs: pages outside docs/ belong to the site, and links that are right in the repository are right there.

    docs/X          -> X
    README.md       -> index.md
    anything else   -> its own path: CONTRIBUTING.md, results/overtraining/README.md, ...

The notebook becomes a page. Any other file that a page links to is copied; a folder is its README.md, and one without
stays text.
"""

import os
from pathlib import Path

from mkdocs.structure.files import File

from docs.tools import notebook
from docs.tools.links import LINK, REPOSITORY, documents, links

NOTEBOOK = REPOSITORY / "docs" / "tutorial.ipynb"


def on_files(files, config):
    """Add files outside docs/ that are shown or linked."""
    pages = documents()
    wanted = {_uri(page): page for page in pages}
    for page in pages:
        for _, target in links(page.read_text(encoding="utf-8")):
            linked = _linked(page, target)
            if linked is not None and linked.is_file() and linked != NOTEBOOK:
                wanted[_uri(linked)] = linked
    for uri, path in wanted.items():
        if files.get_file_from_path(uri) is None:
            files.append(File.generated(config, uri, abs_src_path=str(path)))
    files.append(File.generated(config, _uri(NOTEBOOK), content=notebook.page(NOTEBOOK)))
    return files


def on_page_markdown(markdown, page, **_):
    """Links between files of the repository, as links between pages of the site."""
    here = page.file.src_uri
    source = next((path for path in documents() if _uri(path) == here), NOTEBOOK)
    folder = Path(here).parent

    def moved(match):
        target, (name, mark, anchor) = match["target"], match["target"].partition("#")
        linked = _linked(source, target)
        if linked is None or not name:
            return match[0]
        if linked.is_dir():
            return match["open"].lstrip("!")[1:-2]
        return f"{match['open']}{os.path.relpath(_uri(linked), folder)}{mark}{anchor}{match['close']}"

    return "\n".join(LINK.sub(moved, line) if "](" in line else line for line in markdown.split("\n"))


def _uri(path: Path) -> str:
    """Where a file of the repository is in the site."""
    own = path.relative_to(REPOSITORY)
    if path == NOTEBOOK:
        return "notebook.md"
    if own.parts[0] == "docs":
        return "/".join(own.parts[1:])
    return "index.md" if str(own) == "README.md" else str(own)


def _linked(page: Path, target: str) -> Path | None:
    """The file or folder that a link leads to; None for an address on the web."""
    if target.startswith(("http:", "https:", "mailto:")):
        return None
    path = (page.parent / target.partition("#")[0]).resolve()
    readme = path / "README.md"
    return readme if readme.is_file() else path
