"""How far two tables of one study agree: against differences that were put there."""

import json
import shutil

import pandas as pd
import pytest

from analysis.errors import InputError
from analysis.figures.agreement import APART, agreement
from tests.conftest import REPOSITORY

DEMO = REPOSITORY / "results" / "demo"


def _copy(folder, change=None):
    """results/demo with another table."""
    folder.mkdir()
    frame = pd.read_csv(DEMO / "runs.csv")
    (frame if change is None else change(frame)).to_csv(folder / "runs.csv", index=False)
    shutil.copy(DEMO / "fits.json", folder)
    return folder


def test_the_same_tables_agree_in_all(tmp_path):
    lines = agreement(_copy(tmp_path / "demo"), DEMO)
    assert "160 of 160 rows are there too, losses at most 0 nats apart" in lines[0]
    assert lines[1].split()[0] == lines[1].split()[2] and not any(APART in line for line in lines)
    (slope,) = [line.split() for line in lines if "gamma_D" in line]
    assert slope[2:5] == slope[5:8] == ["0.84", "[0.74,", "0.94]"]


def test_what_differs_is_named(tmp_path):
    def change(frame):
        quantized = frame.index[frame["setting"].notna()]
        frame.loc[quantized[7], "loss"] += 0.25
        return frame.drop(index=quantized[:5]).assign(data_sha="another")

    lines = agreement(_copy(tmp_path / "demo", change), DEMO)
    frame = pd.read_csv(DEMO / "runs.csv")
    worst = frame.loc[frame.index[frame["setting"].notna()][7]]
    assert (
        f"155 of 155 rows are there too, losses at most 0.25 nats apart ({worst['run_id']} {worst['setting']})"
        in (lines[0])
    )
    assert "the text is another there" in lines[1]


def test_parameters_whose_intervals_do_not_meet_are_named(tmp_path):
    content = json.loads((DEMO / "fits.json").read_text())
    slope = content["fits"]["kumar_unified"]["params"]["gamma_D"]
    slope |= {"value": 0.2, "low": 0.1, "high": 0.3}
    del content["sha256"], content["fits"]["chinchilla"]
    folder = _copy(tmp_path / "demo")
    (folder / "fits.json").write_text(json.dumps(content))
    lines = agreement(folder, DEMO)
    (apart,) = [line for line in lines if APART in line]
    assert apart.split()[:3] == ["kumar_unified", "gamma_D", "0.2"]
    assert lines[-1] == "fitted in one of them alone: chinchilla"


def test_a_table_that_names_no_rows_is_one_line(tmp_path):
    folder = _copy(tmp_path / "demo", lambda frame: frame[["N", "D", "loss", "gap", "P_post"]])
    with pytest.raises(InputError, match="has no column run_id, tokens_seen, setting, data_sha"):
        agreement(folder, DEMO)
