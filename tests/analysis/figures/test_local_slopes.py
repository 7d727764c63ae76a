"""The figure of local slopes holds what `slopes_by_width` finds, and a study's folder the same in `slopes.csv`."""

import numpy as np
import pandas as pd
import pytest

import analysis
from analysis.__main__ import main
from analysis.diagnostics.slopes import numbers, slopes_by_width
from analysis.errors import InputError
from analysis.figures.registry import FIGURES

pytestmark = pytest.mark.usefixtures("few_starts")


@pytest.fixture(scope="module")
def frame(tables):
    return tables.simulate(seeds=3, seed=1)


def points(axes):
    """Of the circles in a panel: whether filled, slope."""
    found = [line for line in axes.lines if line.get_marker() == "o"]
    return [(line.get_markerfacecolor() != "white", float(line.get_ydata()[0])) for line in found]


def test_a_panel_a_width_with_its_slopes(frame):
    fit = analysis.fit("kumar_ptq", frame, bootstrap=0)
    drawn, found = FIGURES["local_slopes"](frame, {"kumar_ptq": fit}), slopes_by_width("kumar_ptq", frame)
    panels = {axes.get_title(): axes for axes in drawn.figure.axes}
    assert list(panels) == ["3 bits", "4 bits", "5 bits", "6 bits", "all together"]
    pd.testing.assert_frame_equal(drawn.numbers, numbers(found))
    for title, slopes in (("4 bits", found.widths[4]), ("all together", found.together)):
        assert points(panels[title]) == [(True, e.value) for e in slopes.local]
        bars = [line for line in panels[title].lines if len(set(line.get_xdata())) == 1 and len(line.get_xdata()) == 2]
        assert [tuple(line.get_ydata()) for line in bars] == [(e.low, e.high) for e in slopes.local]
        law = [line for line in panels[title].lines if line.get_linestyle() == ":"]
        assert law[0].get_ydata()[0] == fit.params["gamma_D"]
    low, high = panels["4 bits"].get_ylim()
    everything = [e for s in (*found.widths.values(), found.together) for e in (*s.local, s.constant)]
    assert low < min(e.value for e in everything) < max(e.value for e in everything) < high


def test_slopes_of_too_few_clusters_are_open(tables):
    frame = tables.simulate(sizes=(23_600, 82_900), seeds=1).drop(columns="run_id")
    drawn = FIGURES["local_slopes"](frame, {})
    assert [filled for axes in drawn.figure.axes for filled, _ in points(axes)] == [False] * 15
    assert not [line for line in drawn.figure.axes[0].lines if line.get_linestyle() == ":"]


def test_a_table_without_gaps_or_with_one_D_is_a_line(tables):
    with pytest.raises(InputError, match="gap: the table has no such column"):
        FIGURES["local_slopes"](tables.simulate(post=()), {})
    with pytest.raises(InputError, match="D has 1 different value"):
        FIGURES["local_slopes"](tables.simulate(tokens=(1e6,)), {})


def test_a_study_gets_its_slopes_and_the_verdict(capsys, tmp_path, frame, undrawn):
    folder = tmp_path / "toy"
    folder.mkdir()
    bent = frame.assign(gap=frame["gap"] * np.exp(-0.15 * np.log(frame["D"] / 3e6) ** 2))
    bent.to_csv(folder / "runs.csv", index=False)
    arguments = ["figures", "toy", "--results", str(tmp_path), "--bootstrap", "0"]
    assert main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert f"slopes: {folder / 'slopes.csv'}" in lines
    assert any(line.startswith("slope of ln gap in ln D: not constant (") for line in lines)
    assert lines[-1].startswith("gamma_D = ")
    written = pd.read_csv(folder / "slopes.csv")
    np.testing.assert_allclose(
        written["value"], numbers(slopes_by_width("kumar_ptq", pd.read_csv(folder / "runs.csv")))["value"], rtol=1e-7
    )
    assert (folder / "figures" / "local_slopes.pdf").exists()

    # A table that determines none: reported, no fault, and no slopes of another table are left behind.
    frame[frame["ptq"].isna()].to_csv(folder / "runs.csv", index=False)
    assert main([*arguments, "--why"]) == 0
    out = capsys.readouterr().out
    assert "skipped slopes: kumar_ptq: " in out and "slope of ln gap" not in out
    assert not (folder / "slopes.csv").exists()
