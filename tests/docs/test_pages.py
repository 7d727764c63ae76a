"""Pages for people: links lead somewhere, the reference is that of the code, examples and the notebook run."""

import contextlib
import doctest
import re
import tomllib
from pathlib import Path

import pytest
import yaml

from docs.tools import links, notebook, reference
from tests.conftest import REPOSITORY

NUMBER = re.compile(r"-?\d+\.?\d*(?:e[+-]?\d+)?")


def test_every_link_leads_to_a_file_and_a_heading():
    assert links.broken() == []


def test_links_that_lead_nowhere_are_found(tmp_path, monkeypatch):
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.md").write_text("# A title: `x`\n\n## Again\n\n## Again\n")
    page = """
[good](docs/a.md) [heading](docs/a.md#a-title-x) [second](docs/a.md#again-1) [own](#here) [web](https://nowhere.example)

    [in code](nowhere.md)

`[a span](nowhere.md)`
## Here
![picture](docs/none.png) and [two](docs/a.md#b)
[out](../a.md)
"""
    (tmp_path / "README.md").write_text(page)
    monkeypatch.setattr(links, "REPOSITORY", tmp_path)
    assert [fault.partition(": ")[2] for fault in links.broken()] == [
        "docs/none.png: no such file",
        "docs/a.md#b: no such heading",
        "../a.md: leads out of the repository",
    ]


def test_the_reference_is_that_of_the_code():
    stored = {path.name: path.read_text(encoding="utf-8") for path in reference.FOLDER.glob("*.md")}
    made = reference.pages()
    stale = [name for name in {*made, *stored} if made.get(name) != stored.get(name)]
    assert not stale, f"python -m docs.tools.reference makes {', '.join(stale)} anew"


def test_examples_of_the_reference_run():
    with contextlib.chdir(REPOSITORY):
        tried = doctest.testfile(
            str(reference.FOLDER / "python.md"), module_relative=False, optionflags=doctest.NORMALIZE_WHITESPACE
        )
    assert tried.attempted > 50 and tried.failed == 0


def test_the_notebook_runs_and_shows_what_is_stored():
    shown, stored = notebook.texts(notebook.run()), notebook.texts(notebook.stored())
    assert len(shown) == len(stored) > 8
    for now, then in zip(shown, stored, strict=True):
        assert NUMBER.sub("#", now).split() == NUMBER.sub("#", then).split()
        numbers = [float(number) for number in NUMBER.findall(now)]
        # Another processor rounds differently.
        assert numbers == pytest.approx([float(number) for number in NUMBER.findall(then)], rel=0.02, abs=0.002)


def test_the_front_page_is_short_and_its_studies_are_there():
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    assert 80 <= len(text.splitlines()) <= 100
    for name in re.findall(r"sweeps=(\w+)", text):
        assert (REPOSITORY / "sweeps" / f"{name}.yaml").is_file()
    targets = set(re.findall(r"^([a-z-]+):.*##", (REPOSITORY / "Makefile").read_text(encoding="utf-8"), re.M))
    pages = [path.read_text(encoding="utf-8") for path in links.documents()]
    asked = {name for page in pages for name in re.findall(r"(?:^    |`)make ([a-z-]+)", page, re.M)}
    assert asked <= targets, asked - targets


def test_the_site_has_every_page():
    nav = (REPOSITORY / "mkdocs.yml").read_text(encoding="utf-8")
    for path in (REPOSITORY / "docs").rglob("*.md"):
        assert str(path.relative_to(REPOSITORY / "docs")) in nav


def test_the_version_is_one():
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    cited = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text(encoding="utf-8"))
    assert cited["version"] == project["version"] and cited["license"] == project["license"]["text"]
    assert f"## {project['version']}" in (REPOSITORY / "CHANGELOG.md").read_text(encoding="utf-8")
    assert Path(REPOSITORY / "LICENSE").is_file()
