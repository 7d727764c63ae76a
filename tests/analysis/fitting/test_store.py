"""FITS.json: what is written is what is read, byte for byte the same from the same table, and damage is reported."""

import json
import math
import random

import numpy as np
import pytest

import analysis
from analysis.errors import InputError
from analysis.fitting import store


@pytest.fixture(scope="module")
def made(tables):
    frame = tables.simulate(trained=tables.TRAINED[:5])
    found = {name: analysis.fit(name, frame, bootstrap=60) for name in ("kumar_ptq", "kumar_neff", "chinchilla")}
    return store.Fits(name="runs.csv", sha256="0" * 64, rows=len(frame), fits=found, skipped={"other": "no rows"})


def test_round_trip(made, tmp_path, tables):
    store.write(tmp_path / "fits.json", made)
    again = store.read(tmp_path / "fits.json")
    assert (again.name, again.sha256, again.rows, again.skipped) == (made.name, made.sha256, made.rows, made.skipped)
    frame = tables.simulate(seeds=1)
    for name, fit in made.fits.items():
        restored = again.fits[name]
        assert restored.law.symbols == fit.law.symbols
        assert restored.params == pytest.approx(fit.params, rel=1e-7)
        for symbol in fit.params:
            assert restored.interval(symbol) == pytest.approx(fit.interval(symbol), rel=1e-6)
        rows = frame[frame["gap"].notna() == (fit.law.response == "gap")]
        np.testing.assert_allclose(restored.predict(rows), fit.predict(rows), rtol=1e-5)
        np.testing.assert_allclose(restored.predict_se(rows), fit.predict_se(rows), rtol=1e-2)
    store.write(tmp_path / "again.json", again)
    assert (tmp_path / "again.json").read_bytes() == (tmp_path / "fits.json").read_bytes()


def test_entry_says_how_the_fit_was_made(made):
    entry = store.entry(made.fits["kumar_neff"])
    assert set(entry["params"]) == {"A", "B", "E", "alpha", "beta", "gamma_w", "n_w"}
    assert set(entry["params"]["gamma_w"]) == {"value", "low", "high", "se", "unit", "at_bound"}
    wanted = {"law", "rows", "filter", "objective", "huber_delta", "starts", "starts_at_optimum", "status", "condition"}
    wanted |= {"r2", "rmse", "bootstrap", "source", "left_out", "warnings", "active_share", "r2_within"}
    assert wanted <= set(entry)
    assert {"kind", "clusters", "draws"} <= set(entry["bootstrap"])
    gap = store.entry(made.fits["kumar_ptq"])
    assert gap["noise"]["tau"] > 0
    assert gap["constants"] == {"b": 0.0}
    json.dumps(entry, allow_nan=False)


def test_published_constants_have_the_same_form(tmp_path):
    paper = {"kumar_ptq": store.published("kumar_ptq")}
    store.write(tmp_path / "paper.json", store.Fits(name="paper", sha256="", rows=0, fits=paper))
    again = store.read(tmp_path / "paper.json").fits["kumar_ptq"]
    assert again.params["gamma_D"] == 0.5068
    assert math.isnan(again.interval("gamma_D")[0])
    assert again.status == "published"


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: text.replace('"rows": ', '"rows": 1', 1),
        lambda text: "\xff" + text,
        lambda text: text.replace('"schema": 2', '"schema": 99'),
        lambda text: text.replace('"gamma_D"', '"gamma_Q"'),
        lambda text: text.replace('"law": "kumar_ptq"', '"law": "kumar_pqt"'),
        lambda text: "[]",
        lambda text: "",
    ],
)
def test_damaged_files_are_one_line(made, tmp_path, damage):
    path = tmp_path / "fits.json"
    store.write(path, made)
    path.write_text(damage(path.read_text()))
    with pytest.raises(InputError) as fault:
        store.read(path)
    assert "\n" not in str(fault.value)


def test_a_flipped_bit_is_told_or_changes_nothing(made, tmp_path):
    path, chance = tmp_path / "fits.json", random.Random(0)
    store.write(path, made)
    content = path.read_bytes()
    for _ in range(100):
        changed = bytearray(content)
        changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
        path.write_bytes(changed)
        try:
            again = store.read(path)
        except InputError as fault:
            assert "\n" not in str(fault)
        else:  # such as another blank between two values
            store.write(path, again)
            assert path.read_bytes() == content


def test_a_file_without_a_checksum_is_read(made, tmp_path):
    path = tmp_path / "fits.json"
    store.write(path, made)
    content = json.loads(path.read_text())
    del content["sha256"]
    path.write_text(json.dumps(content))
    assert store.read(path).rows == made.rows


def test_nothing_half_written(made, tmp_path, monkeypatch):
    path = tmp_path / "fits.json"
    store.write(path, made)
    before = path.read_bytes()
    with pytest.raises(RuntimeError), store.replacing(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["fits.json"]
