"""Links of Markdown files, and those that lead nowhere: `python -m docs.tools.links`.

Addresses on the web are not tried.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
FENCE = re.compile(r" {0,3}(```|~~~)")
LINK = re.compile(r"(?P<open>!?\[(?:[^\[\]]|\[[^\[\]]*\])*\]\()(?P<target>[^()\s]+)(?P<close>(?: \"[^\"]*\")?\))")
HEADING = re.compile(r"#{1,6} +(.*?)(?: +#+)? *$")
CODE_SPAN = re.compile(r"(`+)(?:(?!`).)+?\1")


def documents() -> list[Path]:
    """Every page for people, from the repository's root."""
    patterns = ("*.md", "docs/**/*.md", "results/*.md", "results/*/*.md")
    return sorted(path for pattern in patterns for path in REPOSITORY.glob(pattern))


def prose(text: str) -> Iterator[tuple[int, str]]:
    """The lines of a page with their numbers, blocks of code left out."""
    fence, after_blank = "", True
    for number, line in enumerate(text.splitlines(), start=1):
        if match := FENCE.match(line):
            fence = "" if fence == match[1] else fence or match[1]
        elif not fence and not (line.startswith("    ") and after_blank):
            yield number, line
            after_blank = not line.strip()
            continue
        after_blank = after_blank or not line.strip()


def links(text: str) -> Iterator[tuple[int, str]]:
    """Line and target of every link and picture that is not an address on the web."""
    for number, line in prose(text):
        for match in LINK.finditer(CODE_SPAN.sub(lambda span: "`" * len(span[0]), line)):
            if not re.match(r"[a-z]+:", match["target"]):
                yield number, match["target"]


def anchors(text: str) -> set[str]:
    """What # may name in a page: its headings, as GitHub and mkdocs write them."""
    names: set[str] = set()
    for _, line in prose(text):
        names |= set(re.findall(r'<a id="([^"]+)"', line))
        if match := HEADING.match(line):
            slug = re.sub(r"[^\w\s-]", "", match[1]).strip().lower()
            slug = re.sub(r"\s", "-", slug)
            names.add(slug if slug not in names else f"{slug}-1")
    return names


def broken() -> list[str]:
    """A line for each link to a file or a heading that is not there, and for each that leaves the repository."""
    faults = []
    for page in documents():
        text = page.read_text(encoding="utf-8")
        for number, target in links(text):
            name, _, anchor = target.partition("#")
            path = (page.parent / name).resolve() if name else page
            where = f"{page.relative_to(REPOSITORY)}:{number}: {target}"
            if not path.is_relative_to(REPOSITORY):
                faults.append(f"{where}: leads out of the repository")
            elif not path.exists():
                faults.append(f"{where}: no such file")
            elif anchor and path.suffix == ".md" and anchor not in anchors(path.read_text(encoding="utf-8")):
                faults.append(f"{where}: no such heading")
    return faults


if __name__ == "__main__":
    print(*broken(), sep="\n", end="")
    sys.exit(bool(broken()))
