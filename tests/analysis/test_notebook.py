"""What a notebook shows: frames, HTML and plots of results, against the results themselves."""

import numpy as np
import pandas as pd
import pytest

import analysis
from analysis import palettes
from analysis.errors import InputError
from analysis.fitting import store


@pytest.fixture(scope="module")
def table(tables):
    return tables.simulate()


@pytest.fixture(scope="module")
def gap(table):
    return analysis.fit("kumar_ptq", table, bootstrap=20)


def test_a_fit_is_a_frame_and_a_page(gap):
    frame = gap.to_frame()
    assert list(frame.index) == list(gap.params) and frame["value"].to_dict() == gap.params
    assert (frame.loc["gamma_D", "low"], frame.loc["gamma_D", "high"]) == gap.interval("gamma_D")
    assert frame.loc["gamma_post", "unit"] == "bits" and frame["value"].dtype.kind == "f"
    assert repr(gap).startswith("kumar_ptq: gamma_D = ") and len(repr(gap)) < 300
    page = gap._repr_html_()
    assert "gamma_D" in page and gap.law.equation.replace("&", "&amp;").split()[0] in page
    assert all(cell in gap.summary()._repr_html_() for cell in ("gamma_D", "correlations", "left out"))


def test_a_plot_has_each_row_measured_and_predicted(gap, table, tmp_path):
    path = tmp_path / "gap.png"
    figure = gap.plot(path=path)
    assert path.read_bytes().startswith(b"\x89PNG")
    left, right = figure.axes
    points = np.concatenate([line.get_xydata() for line in right.lines if line.get_linestyle() == "None"])
    rows = gap.fitted.frame
    measured = np.column_stack([gap.predict(rows), rows["gap"]])
    np.testing.assert_allclose(points[np.lexsort(points.T)], measured[np.lexsort(measured.T)], rtol=1e-9)
    assert [text.get_text() for text in right.get_legend().get_texts()] == [
        f"P_post = {bits:g}" for bits in sorted(rows["P_post"].unique())
    ]
    looks = {(line.get_color(), line.get_marker()) for line in right.lines if line.get_linestyle() == "None"}
    assert looks == set(palettes.looks(range(rows["P_post"].nunique())).values())  # as in figures, also without colour
    assert left.get_xlabel() == "D" and left.get_yscale() == "log"
    with pytest.raises(InputError, match="docx: expected a name that ends in"):
        gap.plot(path=tmp_path / "gap.docx")


def test_a_plot_of_one_row_a_size_and_of_a_fit_from_a_file(table, tmp_path):
    law = analysis.fit("L = B*N**-beta + E", table[table["D"] == table["D"].max()], bootstrap=0)
    assert law.plot().axes[0].get_xlabel() == "N"  # D does not vary
    store.write(tmp_path / "f.json", store.Fits(name="t", sha256="", rows=1, fits={law.law.name: law}))
    (again,) = analysis.read_fits(str(tmp_path / "f.json")).fits.values()
    with pytest.raises(InputError, match="was read from a file"):
        again.plot()
    assert len(again.plot(table[table["D"] == table["D"].max()]).axes) == 2


def test_a_prediction_takes_fits_in_any_form_and_names_of_formats(gap, table):
    loss = analysis.fit("chinchilla", table, bootstrap=20)
    asked = {"N": 1e5, "D": 3e6}
    whole = analysis.predict({"chinchilla": loss, "kumar_ptq": gap}, **asked, widths={}, post=4.0)
    assert analysis.predict([loss, gap], **asked, post="int4") == whole
    assert analysis.predict(loss, **asked) == analysis.predict([loss], **asked, widths={"P_w": "bf16"})
    frame = whole.to_frame()
    assert list(frame.index) == ["loss", "gap", "total"] and frame["value"].dtype.kind == "f"
    assert frame.loc["total", "value"] == pytest.approx(frame["value"][["loss", "gap"]].sum())
    assert list(analysis.predict(loss, **asked).to_frame().index) == ["loss", "total"]
    assert "kumar_ptq" in whole._repr_html_()
    with pytest.raises(InputError, match="nope: not a format"):
        analysis.predict([loss, gap], **asked, post="nope")


def test_a_comparison_is_a_frame_a_page_and_a_plot(table, tmp_path):
    made = analysis.compare(table, holdout="N", laws=["chinchilla", "chinchilla_tied", "kumar_ptq", "kumar_neff"])
    frame = made.to_frame()
    assert list(zip(frame["response"], frame["law"], strict=True)) == [
        (ranking.response, score.law) for ranking in made.rankings for score in ranking.scores
    ]
    assert frame.groupby("response")["rmse"].apply(lambda errors: errors.is_monotonic_increasing).all()
    assert pd.isna(frame.loc[frame["rank"] == 1, "wins"]).all()
    assert "chinchilla_tied" in made._repr_html_() and "not compared: kumar_neff" in made._repr_html_()
    assert len(made.plot(tmp_path / "laws.svg").axes) == len(made.rankings)
    assert (tmp_path / "laws.svg").stat().st_size > 1000
