"""Contrasts of the schedule study on planted trunks: what is a branch of what, and what each contrast measures."""

import dataclasses
import math

import numpy as np
import pytest

from analysis.report.claims.schedule import arms, cosine, main_arm, share
from analysis.report.evidence import contrasts
from analysis.report.evidence.tables import Tables
from analysis.validation import simulated_studies
from analysis.validation.simulator import L2, L3, Truth

EXACT = Truth(noise=0.0, before=0.36, jump=0.4, mean=0.1)


@pytest.fixture(scope="module")
def frames():
    return simulated_studies.tables(EXACT, only=["schedule"])


@pytest.fixture(scope="module")
def trunks(frames):
    frame = frames["schedule"]
    plain = frame["ptq"].isna() | (frame["granularity_post"] == "channel")
    return contrasts.trunks(frame[plain])


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    folder = tmp_path_factory.mktemp("schedule")
    simulated_studies.write(folder, EXACT, only=["schedule", "overtraining"])
    return Tables(folder, ("schedule", "overtraining"), draws=40, seed=0, progress=lambda line: None)


def test_branches_belong_to_their_trunk(trunks):
    assert len(trunks) == 14  # as many as the study's design has
    for trunk in trunks:
        assert len(trunk.decayed) == 9
        assert set(trunk.decayed["D_d"]) == {0.5e6, 2e6, 8e6}
        assert {round(d / 1e6) for d in trunk.decayed["D_b"]} == {2, 8, 32}
        assert len(trunk.averaged) in (0, 9)
        assert len(trunk.rewarmed) == 1
        assert [len(rows) for rows in trunk.held.values()] == [3]
        assert len(trunk.path) == 6
    assert sum(math.isinf(trunk.tau) for trunk in trunks) == 2  # without weight decay
    assert sum(len(trunk.averaged) for trunk in trunks) == 9 * 8  # at the usual rate


def test_contrasts_are_the_planted_ones(trunks):
    trunk = next(t for t in trunks if t.N == L3)
    found = contrasts.contrasts(trunk)
    # Windows round token counts to whole batches: slopes are good to a thousandth.
    assert found["K1"] == pytest.approx(0.36, abs=2e-3)
    assert found["K2"] == pytest.approx(0.36, abs=2e-3)
    assert found["K4"] == pytest.approx(0.36, abs=2e-3)
    assert found["K7"] == pytest.approx(0.0, abs=2e-3)
    ends = trunk.decayed[trunk.decayed["D"] <= 32e6 * contrasts.BEYOND]
    lost = np.log(ends["D_b"].astype(float) / np.minimum(ends["D"], 32e6).astype(float)).mean()
    assert found["K3"] == pytest.approx(0.4 + 0.36 * lost, abs=2e-3)
    assert found["A2"] == pytest.approx(0.36, abs=2e-3)
    assert found["A3"] == pytest.approx(0.1 + 0.36 * lost, abs=2e-3)
    assert found["AD"] == pytest.approx(0.1 - 0.4, abs=2e-3)
    assert found["K5"] == pytest.approx(0.36 * math.log(16 / 8) - 0.4, abs=2e-3)


def test_a_trunk_is_not_continued_beyond_its_evaluations(trunks):
    trunk = next(t for t in trunks if t.N == L3)
    short = dataclasses.replace(trunk, path=trunk.path[trunk.path["tokens_seen"] < 5e6])
    only = short.decayed[short.decayed["D"] < 5e6]
    restricted = contrasts.contrasts(dataclasses.replace(short, decayed=only))
    assert contrasts.contrasts(short)["K3"] == pytest.approx(restricted["K3"])
    empty = dataclasses.replace(trunk, path=trunk.path[:0])
    assert math.isnan(contrasts.contrasts(empty)["K1"]) and math.isnan(contrasts.contrasts(empty)["K6"])


def test_saturated_gaps_are_no_outcome(frames):
    frame = frames["schedule"]
    points = contrasts.outcomes(frame[frame["ptq"].isna() | (frame["granularity_post"] == "channel")])
    logs = points[[3.0, 4.0]].to_numpy(float)
    assert np.nanmax(logs) < 0.0
    assert np.isnan(logs).any() == ((frame["P_post"] == 3) & (frame["gap"] >= 1)).any()


def test_arms_are_told_by_rate_and_weight_decay(tables):
    found = arms(tables)
    names = ["the usual rate", "2 of the usual rate", "0.33 of the usual rate", "the usual rate, no weight decay"]
    assert sorted(found) == sorted(names)
    assert next(iter(found)) == "the usual rate"
    assert {t.N for t in found["the usual rate"]} == {L2, L3}


def test_s_is_the_share_of_the_growth_under_cosine(tables):
    assert cosine(tables).value == pytest.approx(0.5, abs=5e-3)
    assert main_arm(tables)["K2"].value == pytest.approx(0.36, abs=2e-3)
    finding = share(tables)
    assert finding.numbers["S"].value == pytest.approx(0.72, abs=0.02)
    assert finding.reading == "Tokens."
