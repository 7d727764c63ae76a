"""The report as a document: from the tables alone, complete where tables are missing, and one HTML file by itself."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest

from analysis.__main__ import main
from analysis.report import build
from analysis.report.document import blocks, render
from analysis.report.document.blocks import Bullets, Document, Grid, Heading, Paragraph, Verdict
from analysis.report.evidence import predictions, studies
from analysis.report.evidence.tables import COLUMNS, Rows, Tables
from analysis.report.verdicts import NOT_RUN, REPRODUCED
from analysis.table import digest
from analysis.validation import simulated_studies
from analysis.validation.simulator import Truth

VOID = {"meta", "img", "br"}
QUICK = ("dtype", "seeds")


class Page(HTMLParser):
    """What a page refers to, its pictures and its text, and whether its tags close."""

    def __init__(self, text):
        super().__init__()
        self.open, self.faults, self.refers, self.ids, self.told = [], [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        known = dict(attrs)
        self.refers += [(tag, known[name]) for name in ("src", "href", "srcset", "data") if name in known]
        self.ids += [known["id"]] if "id" in known else []
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.faults.append(tag)

    def handle_data(self, data):
        self.told.append(data)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    simulated_studies.write(folder, Truth(noise=0.3), only=QUICK)
    assert main(["report", "--results", str(folder), "--bootstrap", "0"]) == 0
    return folder


def test_the_page_needs_no_other_file_and_no_network(results):
    text = (results / "report.html").read_text()
    page = Page(text)
    assert page.faults == [] and page.open == []
    assert len(page.ids) == len(set(page.ids))
    pictures = [to for tag, to in page.refers if tag == "img"]
    assert pictures and all(to.startswith("data:image/png;base64,iVBOR") for to in pictures)
    inside = [to for tag, to in page.refers if tag == "a"]
    assert {to.removeprefix("#") for to in inside} <= set(page.ids) and len(inside) > len(build.CLAIMS)
    assert not re.search(r"<(script|link|iframe|object)|@import|url\(", text)


def test_every_claim_has_its_rule_before_its_verdict(results):
    text = (results / "report.md").read_text()
    for claim in build.CLAIMS:
        start = text.index(f'<a id="{claim.key}"></a>')
        section = text[start : text.find('<a id="', start + 5)]
        assert f"### {claim.title}" in section
        assert claim.statement in section
        verdict = re.search(
            r"^> \*\*(Reproduced|Not reproduced|Not decidable at this scale|Not run yet)\.\*\*", section, re.M
        )
        assert verdict
        if claim.rule:
            assert section.index(f"**Rule.** {claim.rule.text}") < verdict.start()
    for picture in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", text):
        assert (results / picture).read_bytes().startswith(b"\x89PNG")


def test_missing_tables_are_told_and_fail_nothing(results, tmp_path, capsys):
    text = (results / "report.md").read_text()
    assert "| `overtraining` |" in text and "not run yet: `make sweep S=overtraining`" in text
    assert main(["report", "--results", str(tmp_path), "--bootstrap", "0"]) == 0
    out = capsys.readouterr().out
    assert out.count("not run yet ") == len(build.CLAIMS)
    assert "No study has been run yet." in (tmp_path / "report.md").read_text()
    assert main(["report", "--results", str(tmp_path / "nowhere")]) == 1
    assert "no such folder" in capsys.readouterr().err


def test_a_damaged_table_is_told_and_fails_nothing(results, tmp_path):
    for study in ("dtype", "seeds"):
        frame = pd.read_csv(results / study / "runs.csv")
        (tmp_path / study).mkdir()
        frame.drop(columns="tau" if study == "dtype" else []).to_csv(tmp_path / study / "runs.csv", index=False)
    (tmp_path / "joint").mkdir()
    (tmp_path / "joint" / "runs.csv").write_text("")
    assert main(["report", "--results", str(tmp_path), "--bootstrap", "0"]) == 0
    text = (tmp_path / "report.md").read_text()
    assert "lacks the columns tau; collect the study again" in text
    assert "not a CSV table" in text


def test_numbers_follow_the_table(results, tmp_path):
    shown = {}
    for shift in (0.0, 0.02):
        frame = pd.read_csv(results / "dtype" / "runs.csv")
        frame["loss"] += shift * (frame["dtype"] == "bfloat16")
        folder = tmp_path / f"{shift}"
        (folder / "dtype").mkdir(parents=True)
        frame.to_csv(folder / "dtype" / "runs.csv", index=False)
        assert main(["report", "--results", str(folder), "--bootstrap", "0"]) == 0
        line = re.search(r"the difference of losses in nats \| (\S+) \[", (folder / "report.md").read_text())
        shown[shift] = float(line[1])
        assert line[1] in "".join(Page((folder / "report.html").read_text()).told)
    assert shown[0.02] - shown[0.0] == pytest.approx(0.02, abs=2e-4)


def test_the_same_tables_give_the_same_bytes(results, tmp_path):
    (tmp_path / "report.figures").mkdir()
    (tmp_path / "report.figures" / "gone.png").write_bytes(b"")
    assert main(["report", "--results", str(results), "--out", str(tmp_path), "--bootstrap", "0"]) == 0
    for name in ("report.md", "report.html"):
        assert digest(tmp_path / name) == digest(results / name)
    drawn = {p.name for p in (tmp_path / "report.figures").iterdir()}
    assert drawn == {"dtype.png", "seeds.png"}


def test_what_was_run_comes_from_the_tables(results):
    found = Tables(results, studies.STUDIES, draws=0, seed=0, progress=lambda line: None)
    rows = {row[0]: row for row in studies.overview(found).rows}
    assert rows["`seeds`"][2:7] == ("8", "64", "24k", "8M", rows["`seeds`"][6])
    frame = pd.read_csv(results / "seeds" / "runs.csv")
    hours = frame.drop_duplicates("run_id")["seconds"].sum() / 3600
    assert float(rows["`seeds`"][6]) == pytest.approx(hours, rel=0.05)
    assert rows["`overtraining`"][2] == NOT_RUN
    assert {row[1:] for row in studies.provenance(found).rows} == {
        ("simulated", "bfloat16", "planted"),
        ("simulated", "float32, bfloat16", "planted"),
    }
    assert studies.total(found).startswith("2 of 17 studies, 24 different runs")


def test_a_fit_that_is_stored_for_this_very_table_is_not_made_again(tmp_path):
    frame = simulated_studies.tables(Truth(), only=["overtraining"], plain=True)["overtraining"]
    folder = tmp_path / "overtraining"
    folder.mkdir()
    frame.to_csv(folder / "runs.csv", index=False)
    whole = Rows(studies=("overtraining",), ptq=None, granularity=None, family=None)
    options = {"draws": 20, "seed": 0, "progress": lambda line: None}
    made = Tables(tmp_path, studies.STUDIES, **options).fit("kumar_ptq", whole)
    assert (
        main(["fit", "kumar_ptq", str(folder / "runs.csv"), "--out", str(folder / "fits.json"), "--bootstrap", "30"])
        == 0
    )
    stored = Tables(tmp_path, studies.STUDIES, **options).fit("kumar_ptq", whole)
    assert (made.bootstrap.draws, stored.bootstrap.draws) == (20, 30)
    assert stored.params["gamma_D"] == pytest.approx(made.params["gamma_D"], rel=1e-4)
    frame.assign(gap=frame["gap"] * 1.01).to_csv(folder / "runs.csv", index=False)
    assert Tables(tmp_path, studies.STUDIES, **options).fit("kumar_ptq", whole).bootstrap.draws == 20


def test_rows_of_several_tables_count_once():
    frames = simulated_studies.tables(Truth(), only=["weights", "robustness"])
    assert set(COLUMNS) <= set(frames["weights"])
    found = Tables(Path("nowhere"), (), draws=0, seed=0, progress=lambda line: None)
    found.frames.update(frames)
    both = found.pooled(("weights", "robustness"))
    assert both["run_id"].nunique() < sum(f["run_id"].nunique() for f in frames.values())
    assert not both.duplicated(["run_id", "tokens_seen", "setting"]).any()


# ---- how blocks are written ----


def document(*found):
    return Document(title="t", blocks=(Heading(level=1, text="t", anchor="top"), *found))


def test_symbols_are_set_and_words_are_not():
    assert render.symbols("gamma_D and delta_PTQ of N_eff") == (
        "γ<sub>D</sub> and δ<sub>PTQ</sub> of <i>N</i><sub>eff</sub>"
    )
    assert render.symbols("A claim, kumar_ptq & run_id < 2") == "A claim, kumar_ptq &amp; run_id &lt; 2"
    assert render.symbols("D_b, P*, sigma2") == "<i>D</i><sub>b</sub>, P*, &sigma;<sup>2</sup>"
    assert render.symbols("n_w of n_layers") == "<i>n</i><sub>w</sub> of n_layers"
    assert render.inline("`gamma_D <b>` **tau** [here](#x)") == (
        '<code>gamma_D &lt;b&gt;</code> <strong>τ</strong> <a href="#x">here</a>'
    )


def test_what_a_table_holds_cannot_break_the_page():
    evil = '<img src="http://x"> | `"'
    made = document(Paragraph(text=evil), Grid(heads=("a",), rows=((evil,),)), Bullets(items=(evil,)))
    page = Page(render.html(made))
    assert [to for tag, to in page.refers if tag == "img"] == []
    assert page.faults == []
    assert "\\|" in render.markdown(made, "figures")


def test_verdicts_have_a_colour_besides_their_words():
    page = render.html(
        document(Verdict(verdict=REPRODUCED, text="x"), Grid(heads=("v",), rows=((REPRODUCED,),), verdicts=0))
    )
    assert '<div class="verdict yes"><b>Reproduced.</b> <span>x</span></div>' in page
    assert '<span class="mark yes">reproduced</span>' in page


def test_contents_come_before_the_first_section_and_nest():
    made = document(
        Paragraph(text="first"),
        Heading(level=2, text="one", anchor="a"),
        Heading(level=3, text="under", anchor="b"),
        Heading(level=2, text="two", anchor="c"),
    )
    text = render.markdown(made, "figures")
    assert text.index("first") < text.index("- [one](#a)\n  - [under](#b)\n- [two](#c)") < text.index("## one")
    page = Page(render.html(made))
    assert page.faults == [] and page.open == []


def test_empty_columns_are_left_out():
    made = blocks.grid(("a", "b", "c"), (("1", "", "x"), ("2", "", "")))
    assert (made.heads, made.rows) == (("a", "c"), (("1", "x"), ("2", "")))


def test_what_was_predicted_stands_beside_what_came_out(tmp_path):
    simulated_studies.write(tmp_path, Truth(noise=0.3), only=["matched"])
    tables = Tables(tmp_path, ["matched"], draws=0, seed=0, progress=lambda _: None)
    assert predictions.beside(tables, "matched") == ()
    frame = tables.frames["matched"]
    four = frame[frame["P_w"] == 4]
    lines = [f"{n},{four['D'].iloc[0] * 1.001},4,4,4,16,2,1.9,2.1" for n in (four["N"].iloc[0], 123)]
    (tmp_path / "matched" / "predictions.csv").write_text(
        "\n".join(["N,D,P_w,P_a,P_kv,P_post,loss,loss_low,loss_high", *lines])
    )
    (grid,) = predictions.beside(tables, "matched")
    assert [row[2:6] for row in grid.rows] == [("4", "", "loss", "2.00 [1.90, 2.10]")]  # nothing has N = 123
    assert float(grid.rows[0][6]) == pytest.approx(four["loss"].mean(), abs=1e-4) and len(four) == 2
