"""The report as a document: from the tables alone, complete where tables are missing, and one HTML file by itself."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest

from analysis.__main__ import main
from analysis.report import answers, build
from analysis.report.claims.claim import Claim, Finding, Outcome, verdicts
from analysis.report.document import blocks, render
from analysis.report.document.blocks import Bullets, Document, Grid, Heading, Paragraph, Verdict
from analysis.report.document.small import svg
from analysis.report.evidence import predictions, studies
from analysis.report.evidence.numbers import Number
from analysis.report.evidence.rules import Measured, Rule, above, decisive, published
from analysis.report.evidence.tables import COLUMNS, Rows, Tables
from analysis.report.verdicts import DIFFERS, DIRECTIONS, NOT_DECIDABLE, NOT_RUN, REPRODUCED, SIZES
from analysis.table import digest
from analysis.validation import simulated_studies
from analysis.validation.simulator import Truth

VOID = {"meta", "img", "br", "wbr", "path", "rect", "circle"}
QUICK = ("dtype", "seeds")


class Page(HTMLParser):
    """What a page refers to, its pictures and its text, and whether its tags close."""

    def __init__(self, text):
        super().__init__()
        self.open, self.faults, self.refers, self.ids, self.texts = [], [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        known = dict(attrs)
        self.refers += [(tag, known[name]) for name in ("src", "href", "srcset", "data") if name in known]
        self.ids += [known["id"]] if "id" in known else []
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.faults.append(tag)

    def handle_data(self, data):
        self.texts.append(data)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    simulated_studies.write(folder, Truth(noise=0.3), only=QUICK)
    assert main(["report", "--results", str(folder), "--bootstrap", "0"]) == 0
    return folder


def test_the_page_loads_its_figures_alone_and_runs_nothing(results):
    text = (results / "report.html").read_text()
    assert len(text) < 1e6
    page = Page(text)
    assert page.faults == [] and page.open == []
    assert len(page.ids) == len(set(page.ids))
    pictures = [to for tag, to in page.refers if tag == "img"]
    assert pictures and {*pictures} == {f"report.figures/{p.name}" for p in (results / "report.figures").iterdir()}
    assert all((results / to).read_bytes().startswith(b"<?xml") for to in pictures)
    assert text.count('<img loading="lazy" alt="') == len(pictures)
    links = [to for tag, to in page.refers if tag == "a"]
    assert "https://arxiv.org/abs/2411.04330" in links
    assert all(to.startswith("https://arxiv.org/abs/") for to in links if not to.startswith("#"))
    inside = [to for to in links if to.startswith("#")]
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
            r"^> \*\*Direction: (reproduced|not reproduced|not decidable at this scale|not run yet)\.\*\*",
            section,
            re.M,
        )
        assert verdict
        if claim.rule:
            assert section.index(f"**Rule.** {claim.rule.text}") < verdict.start()
    for picture in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", text):
        assert b"<svg" in (results / picture).read_bytes()


def test_missing_tables_are_told_and_fail_nothing(results, tmp_path, capsys):
    text = (results / "report.md").read_text()
    assert "| `overtraining` |" in text and "not run yet: `make sweep S=overtraining`" in text
    assert main(["report", "--results", str(tmp_path), "--bootstrap", "0"]) == 0
    out = capsys.readouterr().out
    assert sum(line.startswith("not run yet ") for line in out.splitlines()) == len(build.CLAIMS)
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
        assert line[1] in "".join(Page((folder / "report.html").read_text()).texts)
    assert shown[0.02] - shown[0.0] == pytest.approx(0.02, abs=2e-4)


def test_the_same_tables_give_the_same_bytes(results, tmp_path):
    (tmp_path / "report.figures").mkdir()
    (tmp_path / "report.figures" / "gone.png").write_bytes(b"")
    assert main(["report", "--results", str(results), "--out", str(tmp_path), "--bootstrap", "0"]) == 0
    for name in ("report.md", "report.html"):
        assert digest(tmp_path / name) == digest(results / name)
    drawn, before = ({p.name: digest(p) for p in (at / "report.figures").iterdir()} for at in (tmp_path, results))
    assert drawn == before and "dtype.svg" in drawn


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
    page = Page(render.html(made, "figures"))
    assert [to for tag, to in page.refers if tag == "img"] == []
    assert page.faults == []
    text = render.markdown(made, "figures")
    assert "\\|" in text and "<img" not in text and "`<b>`" in render.safe("`<b>`")


def test_verdicts_have_a_colour_besides_their_words():
    said = Verdict(aspect="size", verdict=REPRODUCED, text="x"), Grid(heads=("v",), rows=((REPRODUCED,),))
    page = render.html(document(*said), "figures")
    assert '<div class="verdict yes"><b>Size: reproduced.</b> <span>x</span></div>' in page
    assert {*DIRECTIONS, *SIZES} == {*render.CLASSES}
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
    page = Page(render.html(made, "figures"))
    assert page.faults == [] and page.open == []


def test_numbers_of_arxiv_are_links_and_long_words_may_break():
    link = '<a href="https://arxiv.org/abs/2411.04330">arXiv 2411.04330</a>'
    assert render.inline("(arXiv 2411.04330)") == f"({link})"
    assert render.inline(render.linked("arXiv 2411.04330")) == link
    assert render.safe("arXiv 2411.04330, x < 2") == ("[arXiv 2411.04330](https://arxiv.org/abs/2411.04330), x &lt; 2")
    assert render.inline("`" + "x" * 45 + "`") == f"<code>{'x' * 20}<wbr>{'x' * 20}<wbr>{'x' * 5}</code>"
    assert render.plain("a [link](#x) to `gamma_D`") == "a link to gamma_D"


def test_what_is_folded_is_opened_by_a_link_to_what_is_inside():
    made = document(Heading(level=2, text="s", anchor="s"), Heading(level=3, text="p", anchor="p"), Paragraph(text="x"))
    page = render.html(made, "figures")
    assert re.search(r'<details><summary><h3>p</h3></summary>\s*<div class="inside" id="p">\s*<p>x</p>', page)
    assert '<a href="#p">p</a>' in page.partition("<nav")[2]


def small(**span):
    """Places of a small figure's parts in pixels: the field's left edge and width, the interval's ends, both points."""
    text = str(svg(blocks.Span(**span), "seen"))
    numbers = {"field": r'class="wanted" x="([\d.]+)" width="([\d.]+)"', "interval": r"M([\d.]+) 9H([\d.]+)"}
    numbers |= {"paper": r'class="published" d="M([\d.]+)', "ours": r'cx="([\d.]+)"'}
    found = {name: re.search(pattern, text) for name, pattern in numbers.items()}
    return {name: [float(v) for v in match.groups()] for name, match in found.items() if match}


def test_a_small_figure_puts_numbers_in_their_order():
    made = small(value=0.2, low=0.1, high=0.3, wanted=(0.0, float("inf")), paper=0.5)
    (left, width), (low, high), (paper,), (ours,) = made.values()
    assert 0 < left < low < ours < high < paper < left + width == 116  # the field is open to the right
    assert ours - low == pytest.approx(high - ours, abs=0.11)
    assert (low - left) == pytest.approx((high - low) / 2, abs=0.11)  # linear: 0 to 0.1 beside 0.1 to 0.3
    outside = small(value=-2.0, low=-3.0, high=-1.0, wanted=(0.0, float("inf")))
    assert outside["interval"][1] < outside["field"][0] and "paper" not in outside
    assert small(value=3.0, low=float("nan"), high=float("inf")).keys() == {"ours"}
    assert "<title>&lt;b&gt;</title>" in svg(blocks.Marks(met=(True, False, None)), "<b>")


def test_the_row_of_a_claim_has_the_number_that_decides_and_the_published_one():
    assert [decisive(met) for met in (["yes", "open", "no"], ["yes", "open"], ["yes", "yes"], [])] == [
        2,
        1,
        0,
        0,
    ]
    rule = Rule.of(
        above("a", "a slope"), above("b", "another"), measured=Measured(estimator="", filter="", weights=""),
        published=(published("a", "a slope"),),
    )  # fmt: skip
    claim = Claim(key="k", title="t", source="s", statement="s", how="h", rule=rule)
    numbers = {"a": Number(value=2.0, low=1.0, high=3.0, paper=8.0), "b": Number(value=0.5, low=-1.0, high=2.0)}
    made = verdicts(rule, Finding(numbers=numbers))
    outcome = Outcome(
        claim=claim, finding=Finding(numbers=numbers), direction=made.direction, size=made.size, met=made.met
    )
    row = answers.answer(outcome)
    assert row.numbers == (("another", "0.5 [-1.0, 2.0]", ""), ("a slope", "2.0 [1.0, 3.0]", "8"))
    assert row.verdicts == {"direction": NOT_DECIDABLE, "size": DIFFERS}
    assert row.figure == blocks.Span(value=0.5, low=-1.0, high=2.0, wanted=(0.0, float("inf")))
    assert row.seen == "another: 0.5 [-1.0, 2.0]. Wanted above 0: open."


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
