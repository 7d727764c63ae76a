"""What it would cost to decide a claim, and its study with new seeds."""

import math
from pathlib import Path

import numpy as np
import pytest
import yaml
from scipy import stats

from analysis.__main__ import main
from analysis.report.evidence.numbers import Number, mean
from analysis.report.evidence.rules import above, within
from analysis.report.more_seeds import seeds_of
from analysis.report.price import MOST, needed_units, with_units
from analysis.validation import simulated_studies
from analysis.validation.simulator import Truth

REPOSITORY = Path(__file__).parents[3]


def pairs(value: float, sd: float, k: int) -> Number:
    """The mean of k units with exactly this mean and standard deviation."""
    draw = np.random.default_rng(k).standard_normal(k)
    return mean(value + sd * (draw - draw.mean()) / draw.std(ddof=1), what="pairs")


def test_more_units_narrow_as_a_mean_of_so_many_does():
    number = with_units(pairs(0.03, 0.08, 8), 32)
    assert (number.high - number.low) / 2 == pytest.approx(stats.t.ppf(0.975, 31) * 0.08 / math.sqrt(32))
    again = pairs(0.03, 0.08, 32)
    assert (number.low, number.high) == pytest.approx((again.low, again.high))


@pytest.mark.parametrize("condition", [within("x", "x", -0.05, 0.05), above("x", "x", 0.04)])
def test_what_is_needed_is_the_fewest_that_decide(condition):
    """Whether it would hold (the first) or fail (the second)."""
    number = pairs(0.03, 0.08, 8)
    needed = needed_units(condition, number)
    met = [condition.judge({"x": with_units(number, k)}, {}) for k in (needed - 1, needed)]
    assert met[0] == "open" and met[1] == ("yes" if condition.high == 0.05 else "no")
    by_hand = (
        next(k for k in range(9, MOST) if stats.t.ppf(0.975, k - 1) * 0.08 / math.sqrt(k) < abs(0.03 - condition.high))
        if condition.high == 0.05
        else needed
    )
    assert needed == by_hand


def test_an_estimate_on_the_edge_is_decided_by_no_number_of_units():
    assert needed_units(within("x", "x", -0.05, 0.05), pairs(0.05, 0.08, 8)) is None


@pytest.mark.parametrize(
    ("text", "seeds"), [(7, [7]), ("1,2, 5", [1, 2, 5]), ("range(6,9)", [6, 7, 8]), ("range(3)", [0, 1, 2])]
)
def test_seeds_as_grids_have_them(text, seeds):
    assert seeds_of(text) == seeds


def test_a_claim_is_priced_and_its_study_written_with_new_seeds(tmp_path, capsys):
    source = tmp_path / "dtype.yaml"
    source.write_bytes((REPOSITORY / "sweeps/dtype.yaml").read_bytes())
    (tmp_path / "results" / "dtype").mkdir(parents=True)
    open_ = simulated_studies.tables(Truth(noise=3.0), only=["dtype"], plain=True, seed=1)["dtype"]
    open_.to_csv(tmp_path / "results" / "dtype" / "runs.csv", index=False)
    asked = ["next", str(tmp_path / "results"), "--claim", "dtype", "--hours"]
    assert main([*asked, "0.08", "--out", str(tmp_path / "next_dtype.yaml")]) == 0
    out = capsys.readouterr().out
    assert "between -0.05 and 0.05 wanted; from 8 units (mean of 8 pairs" in out and "0.08 hours: 25 more" in out
    study = yaml.safe_load((tmp_path / "next_dtype.yaml").read_text())
    old, new = (
        [s for grid in text["hydra"]["sweeper"]["grids"] for s in seeds_of(grid["seed"])]
        for text in (yaml.safe_load(source.read_text()), study)
    )
    assert study["study"] == "next_dtype" and not set(old) & set(new) and len(set(new)) == len(new)
    assert len(new) == pytest.approx(25 * len(old) / len(set(old)), abs=2)
    assert study["hydra"]["sweeper"]["params"]["runtime.dtype"] == "float32,bfloat16"
    assert main([*asked, "0.08", "--out", str(tmp_path / "next_dtype.yaml")]) == 1  # what is there is kept
    assert main([*asked, "0.001", "--out", str(tmp_path / "less.yaml")]) == 1
    assert "within this budget no more seeds" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("table", "options", "said"),
    [
        ("results", ["--claim", "nonsense", "--hours", "1"], "'nonsense': unknown; expected one of tokens"),
        ("results/dtype", ["--claim", "dtype", "--hours", "1"], "needs the folder of all studies"),
        ("results", ["--claim", "dtype", "--hours", "nan"], "expected hours or FLOPs"),
    ],
)
def test_bad_input_is_one_line(table, options, said, capsys):
    assert main(["next", str(REPOSITORY / table), *options]) == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("python -m analysis")]
    assert len(lines) == 1 and said in lines[0]
