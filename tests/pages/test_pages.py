"""No page is wider than its window, no text is clipped, every picture has a text that stands for it: the report, its
every kind of block with texts that leave no room, the site, and a page with each of these faults, which are found."""

import importlib.util
import math
import os
import subprocess
import sys

import pytest

from analysis.report.document import render
from analysis.report.document.blocks import (
    Answer,
    Answers,
    Bullets,
    Document,
    Grid,
    Heading,
    Marks,
    Paragraph,
    Picture,
    Span,
    Verdict,
)
from tests.conftest import REPOSITORY
from tests.pages.chromium import measure

WIDTHS = (1280, 390)
LEAST = 20  # letters of a text that says what a picture shows
TOOLS = ("mkdocs", "material")


def faults(found: list[dict]) -> dict[tuple[str, int], list]:
    """What is wrong with pages, by page and width."""
    wrong = {}
    for made in found:
        assert made["window"] == made["width"]
        untold = [p["what"] for p in made["pictures"] if len(p["text"]) < LEAST or not p["loaded"]]
        if faulty := made["wide"] + made["clipped"] + untold + made["outside"]:
            wrong[made["page"], made["width"]] = faulty
    return wrong


def test_each_fault_is_found(tmp_path):
    pages = {
        "wide.html": '<div style="width:1300px">far too wide</div>',
        "clipped.html": '<p style="width:9em;overflow:hidden;white-space:nowrap">a line that is cut off at its end</p>',
        "low.html": '<p style="height:2.1em;overflow:hidden">one<br>two lines<br>half of the third</p>',
        "untold.html": '<svg role="img" width="9" height="9"></svg><img alt="" src="one.svg">',
        "lost.html": '<img alt="a picture that is not there any more" src="none.svg">',
        "right.html": '<p style="width:9em;overflow:auto;white-space:nowrap">a line that one can scroll to its end</p>'
        '<p style="position:absolute;width:1px;height:1px;overflow:hidden">for readers of screens alone</p>'
        '<div style="height:0;overflow:hidden">a menu that is closed</div>'
        '<img loading="lazy" alt="one point on a white ground" src="one.svg">',
    }
    for name, body in pages.items():
        (tmp_path / name).write_text(f"<!DOCTYPE html><meta charset=utf-8><title>t</title><body>{body}")
    (tmp_path / "one.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>')
    found = faults(measure(tmp_path, list(pages), WIDTHS))
    assert {page for page, _ in found} == {f"/{name}" for name in pages} - {"/right.html"}
    assert {width for page, width in found if page == "/wide.html"} == {*WIDTHS}


def test_every_kind_of_block_fits_with_texts_that_leave_no_room(tmp_path):
    long, path = "`study_" + "of_everything_" * 9 + "`", "results/" * 16
    row = (long, "0.123 [0.100, 0.150]", path, "not decidable at this scale", "gamma_D of a very long name", "yes", "")
    wide = Grid(
        heads=("study", "ours, 95%", "path", "direction", "number", "holds", "how"), rows=(row,) * 3, caption=path
    )
    answers = [
        Answer(
            title="What quantization costs grows with the tokens that a model was trained on " + long,
            anchor="claim",
            verdicts={"direction": "not decidable at this scale", "size": "none published"},
            numbers=(("the slope within " + path, "1,234.5 [-1,234.5, 99,999.0] octaves", "0.507"), (long, "3", "")),
            figure=figure,
            seen="A number with its interval, beside where it was wanted.",
        )
        for figure in (
            Span(value=1.0, low=-math.inf, high=math.nan, wanted=(0.0, math.inf), paper=1e9),
            Span(value=2.0, low=2.0, high=2.0),
            Marks(met=(True, False, None) * 2),
        )
    ]
    svg = b'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 700 300"><rect width="700" height="300"/></svg>'
    document = Document(
        title="A report",
        blocks=(
            Heading(level=1, text="A report with a title of " + long, anchor="top"),
            Heading(level=2, text="Claims " + path, anchor="claims"),
            Answers(groups=(("Training " + path, tuple(answers)),)),
            Heading(level=3, text="One claim " + long, anchor="claim"),
            Paragraph(label="Said", text=f"See arXiv 2411.04330. {path} {long}", kind="rule"),
            Bullets(items=(long, path)),
            Verdict(aspect="size", verdict="none published", text=path),
            wide,
            Grid(heads=("a", "b"), rows=((long, path),)),
            Picture(name="one", svg=svg, inches=(9.0, 4.0), caption="Loss against tokens.", seen="It falls."),
        ),
    )
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "one.svg").write_bytes(svg)
    (tmp_path / "report.html").write_text(render.html(document, "figures"))
    found = measure(tmp_path, ["report.html", "report.html#claim"], WIDTHS)
    assert faults(found) == {}
    assert [made["opened"] for made in found] == [None, None, True, True]  # a link to what is folded opens it
    assert [len(made["pictures"]) for made in found] == [4] * 4


def test_the_report():
    found = measure(REPOSITORY / "results", ["report.html"], WIDTHS)
    assert faults(found) == {}
    assert all(made["pictures"] for made in found)


def test_the_site(tmp_path):
    if missing := [name for name in TOOLS if importlib.util.find_spec(name) is None]:
        pytest.skip(f"the site cannot be built without {' and '.join(missing)}; `make docs` installs them")
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", str(tmp_path)]
    quiet = os.environ | {"NO_MKDOCS_2_WARNING": "true"}
    subprocess.run(command, cwd=REPOSITORY, env=quiet, check=True, capture_output=True)
    pages = sorted(str(page.relative_to(tmp_path)) for page in tmp_path.glob("**/*.html") if page.name != "404.html")
    assert len(pages) > 20
    assert faults(measure(tmp_path, pages, WIDTHS)) == {}
