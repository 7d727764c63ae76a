import json
from contextlib import closing
from importlib.metadata import version

import numpy as np
import pandas as pd
import pytest

from scaling.console.cli import UnfinishedError
from scaling.errors import InputError
from scaling.records.columns import NAMES
from scaling.records.run_folder import RunFolder
from scaling.records.table import collect
from scaling.records.window_losses import clustered_mean
from scaling.records.writer import Writer
from scaling.training.loop import train_stack


def test_table_of_a_study(make_run, tmp_path):
    base = make_run("snapshots=[2560]")
    coarse = make_run("precision.weights=int3", "snapshots=[2560]")
    wild = make_run("optimizer.lr=1e30", "optimizer.clip=1e30", "data.tokens=25600")
    train_stack([base, coarse, wild])
    out = tmp_path / "results" / "runs.csv"
    rows = collect(RunFolder(base).path.parent, out)
    table = pd.read_csv(out)
    assert len(table) == rows == 2 * 2 * (1 + 2) + 1
    assert tuple(table.columns) == NAMES
    assert np.isfinite(table.select_dtypes("number").fillna(0)).all().all()

    quantized = table[table.run_id == coarse.run_id]
    assert set(quantized.base_run_id) == {base.run_id} and set(quantized.P_w) == {3}
    at_end = quantized[quantized.ptq.isna() & (quantized.tokens_seen == 5120)].iloc[0]
    ours, theirs = RunFolder(coarse).windows(), RunFolder(base).windows()
    expected = clustered_mean(ours["5120"] - theirs["5120"], ours["documents"])
    assert (at_end.gap_qat, at_end.gap_qat_se) == pytest.approx(expected, rel=1e-6)
    assert table[table.run_id == base.run_id].gap_qat.isna().all()

    after = table[table.ptq.notna()]
    before = table[table.ptq.isna()].set_index(["run_id", "tokens_seen"]).loss
    difference = after.loss - before.loc[list(zip(after.run_id, after.tokens_seen, strict=True))].to_numpy()
    assert after.gap.to_numpy() == pytest.approx(difference.to_numpy(), abs=2e-7)

    failed = table[table.run_id == wild.run_id]
    assert failed.diverged.all() and failed.loss.isna().all()
    made = json.loads((tmp_path / "results" / "provenance.json").read_text())
    assert sum(entry["runs"] for entry in made) == 3
    assert all(entry["versions"]["torch"] == version("torch") and entry["dtype"] == "float32" for entry in made)
    assert sum(entry["hours"] for entry in made) == pytest.approx(
        sum(RunFolder(run).result()["seconds"] for run in (base, coarse, wild)) / 3600, abs=2e-3
    )
    assert collect(RunFolder(base).path.parent, tmp_path / "again.csv") == rows
    assert (tmp_path / "again.csv").read_bytes() == out.read_bytes()


def test_a_last_loss_that_is_not_finite_is_diverged(make_run, tmp_path):
    run = make_run()
    train_stack([run])
    folder, out = RunFolder(run), tmp_path / "runs.csv"
    result = folder.result()
    result["evaluations"][-1]["loss"] = float("nan")
    folder.write_result(result)
    collect(folder.path.parent, out)
    assert pd.read_csv(out)["diverged"].all()


def test_a_run_that_is_written_to_is_named_and_the_others_are_collected(make_run, tmp_path, capsys):
    runs = [make_run(), make_run("seed=1")]
    train_stack(runs)
    held, out = RunFolder(runs[1]).path, tmp_path / "runs.csv"
    with closing(Writer.take(held)), pytest.raises(UnfinishedError):
        collect(held.parent, out)
    assert f"{held}: process" in capsys.readouterr().err
    assert set(pd.read_csv(out).run_id) == {runs[0].run_id}
    assert collect(held.parent, out) == 2 * (1 + 2)


def test_a_study_without_runs_says_so(tmp_path):
    with pytest.raises(InputError, match="no finished run"):
        collect(tmp_path / "nothing", tmp_path / "runs.csv")
    assert not (tmp_path / "runs.csv").exists()
