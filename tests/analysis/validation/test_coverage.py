"""The coverage study: its simulator has the effects that it states, its intervals are those of a fit, its counts are
right, and it is the same for the same seed."""

import csv

import numpy as np
import pytest

import analysis
from analysis.__main__ import main
from analysis.fitting.estimate import prepare
from analysis.fitting.options import Options
from analysis.laws.registry import LAWS
from analysis.planning.next_runs.components import Components
from analysis.validation import coverage, simulator
from analysis.validation.coverage import Asked, ask, tally
from analysis.validation.coverage_designs import DESIGNS, NOISES, Design, Noise, simulated
from analysis.validation.simulator import PLANTED_GAP, PLANTED_LOSS

LADDER, SMALL = DESIGNS
CHANCE = NOISES[0]


def study(design=SMALL, noise=CHANCE, seed=0):
    return simulated(design, noise, np.random.default_rng(seed))


def residuals(noise, count=40, design=SMALL):
    """ln(gap / planted) of the 3-bit rows and ln(loss / planted) of runs, (studies, sizes, seeds, D) each."""
    found = []
    for seed in range(count):
        frame = study(design, noise, seed)
        for rows, value, law, planted in (
            (frame[frame["P_post"] == 3], "gap", "kumar_ptq", PLANTED_GAP),
            (frame[frame["P_post"].isna()], "loss", "chinchilla", PLANTED_LOSS),
        ):
            found.append(np.log(rows[value]) - np.log(LAWS[law].predict(planted, rows)))
    shape = count, 2, len(design.sizes), design.seeds, len(design.tokens)
    return np.moveaxis(np.array(found).reshape(shape), 1, 0)


def test_designs_are_those_of_the_method():
    frame = study(LADDER)
    assert (frame["cluster"].nunique(), frame["run_id"].nunique(), frame["N"].nunique()) == (10, 60, 5)
    assert study(SMALL)["cluster"].nunique() == 6
    assert frame["P_post"].notna().sum() == 240


def test_chance_has_the_stated_sizes():
    gaps, losses = residuals(CHANCE, count=100)
    frame = study()
    windows = (frame["gap_se"] / frame["gap"])[frame["P_post"] == 3]
    own = 0.08**2 + 0.04**2 + np.mean(windows**2)
    assert gaps.var(axis=-1, ddof=1).mean() == pytest.approx(own, rel=0.15)
    # What the six runs of a chain share, and a sixth of what they do not.
    assert gaps.mean(axis=-1).var() == pytest.approx(0.10**2 + own / 6, rel=0.15)
    assert losses.std() == pytest.approx(0.005, rel=0.1)
    assert losses.mean(axis=-1).std() == pytest.approx(0.005 * np.sqrt((1 + 1 / 6) / 2), rel=0.12)
    assert abs(gaps.mean()) < 0.02 and abs(losses.mean()) < 0.001


def test_lack_of_fit_is_shared(monkeypatch):
    for name in ("RUN", "BIT", "WINDOW", "CHAIN", "SEEDS_OF_LOSS"):
        monkeypatch.setattr(simulator, name, 0.0)
    gaps, _ = residuals(Noise(name="x", size=1.0))
    np.testing.assert_allclose(gaps, np.broadcast_to(gaps[:, :, :1, :1], gaps.shape), atol=1e-12)
    assert gaps[:, :, 0, 0].std() == pytest.approx(0.03, rel=0.15)
    gaps, losses = residuals(Noise(name="x", curve=1.0))
    np.testing.assert_allclose(gaps, np.broadcast_to(gaps[:, :1, :1], gaps.shape), atol=1e-12)
    assert gaps[:, 0, 0, -1].std() == pytest.approx(0.03, rel=0.3)
    ends, middle = gaps[:, 0, 0, 0], gaps[:, 0, 0, 2]
    assert np.corrcoef(ends, middle)[0, 1] < -0.99
    assert 0 < losses.std() < 0.01
    gaps, losses = residuals(Noise(name="x"), count=2)
    assert max(np.abs(gaps).max(), np.abs(losses).max()) < 1e-12


def test_components_of_a_table_take_the_place_of_three_percent(monkeypatch):
    for name in ("RUN", "BIT", "WINDOW", "CHAIN"):
        monkeypatch.setattr(simulator, name, 0.0)
    middle = float(np.log(SMALL.tokens).mean())
    fitted = Components(row=0.1, run=0.1, cell=0.0, size=0.13, size_slope=0.04, common=0.05, middle=middle)
    d = np.log(SMALL.tokens) - middle

    def gaps(noise):
        """(studies, sizes, D) of ln(gap / planted) at 4 bits, where no gap saturates."""
        made = []
        for seed in range(60):
            frame = simulated(SMALL, noise, np.random.default_rng(seed), fitted)
            rows = frame[(frame["P_post"] == 4) & frame["run_id"].str.contains("-s0")]
            made.append(np.log(rows["gap"]) - np.log(LAWS["kumar_ptq"].predict(PLANTED_GAP, rows)))
        return np.array(made).reshape(60, len(SMALL.sizes), len(d))

    of_sizes = gaps(Noise(name="x", size=1.0))
    slopes = of_sizes @ d / (d @ d)
    np.testing.assert_allclose(of_sizes, of_sizes.mean(-1)[..., None] + slopes[..., None] * d, atol=1e-9)
    assert of_sizes.mean(-1).std() == pytest.approx(0.13, rel=0.15)
    assert slopes.std() == pytest.approx(0.04, rel=0.15)
    of_tokens = gaps(Noise(name="x", curve=1.0))
    np.testing.assert_allclose(of_tokens, np.broadcast_to(of_tokens[:, :1], of_tokens.shape), atol=1e-9)
    assert of_tokens.std() == pytest.approx(0.05, rel=0.15)


def test_counts_by_hand():
    def asked(low, high, estimate, parameter="gamma_D", method="ours"):
        known = {"design": "ladder", "noise": "chance", "law": "kumar_ptq"}
        return Asked(**known, method=method, parameter=parameter, value=estimate, low=low, high=high)

    nan = float("nan")
    found = tally(
        [
            asked(0.4, 0.6, 0.5),
            asked(0.5, 0.7, 0.6),  # the truth is .5: an end counts
            asked(0.51, 0.6, 0.55),
            asked(nan, nan, 0.35),  # no interval covers nothing
            asked(0.1, 0.2, 0.15, parameter="gamma_N"),
            asked(0.1, 0.9, 0.5, method="rows"),
            asked(0.05, 0.2, 0.1, parameter="prediction"),
        ]
    )
    assert [(r["parameter"], r["method"], r["studies"], r["covered"]) for r in found] == [
        ("gamma_D", "ours", 4, 2),
        ("gamma_N", "ours", 1, 0),
        ("gamma_D", "rows", 1, 1),
        ("prediction", "ours", 1, 1),
    ]
    # .6 (256M)^.5 (1.328M)^-.35 exp(-4 / .6), by hand
    assert found[-1]["truth"] == pytest.approx(0.0879, rel=1e-3)
    first = found[0]
    assert (first["coverage"], first["mc_se"], first["truth"]) == (0.5, 0.25, 0.5)
    assert first["bias"] == pytest.approx(0.0) and first["sd"] == pytest.approx(
        np.std([0.5, 0.6, 0.55, 0.35]), rel=1e-3
    )


@pytest.mark.parametrize(("low", "line"), [(0.4, "None."), (0.6, "- small, chance: kumar_ptq: gamma_D 0.0")])
def test_the_page_lists_what_fell_short_in_this_run(low, line):
    known = {"design": "small", "noise": "chance", "law": "kumar_ptq", "method": "ours"}
    records = tally([Asked(**known, parameter="gamma_D", value=0.5, low=low, high=0.7)] * 9)  # the truth is .5
    page = coverage.report(records, command="coverage", commit="abc", seconds=1.0, failed=0)
    assert page.split("two standard errors\n\n")[1].splitlines()[0] == line


@pytest.mark.slow
def test_one_study_asks_for_what_a_fit_gives():
    seed, number = 3, 2
    found = list(ask(SMALL, NOISES[3], seed=seed, study=number, draws=30))
    assert found == list(ask(SMALL, NOISES[3], seed=seed, study=number, draws=30))
    assert found != list(ask(SMALL, NOISES[3], seed=seed, study=number + 1, draws=30))
    frame = simulated(SMALL, NOISES[3], np.random.default_rng([seed, number, 1, 3]))
    for law in ("kumar_ptq", "chinchilla"):
        fit = analysis.fit(law, frame, bootstrap=30, seed=number)
        ours = {one.parameter: one for one in found if (one.law, one.method) == (law, "ours")}
        predicted = ours.pop("prediction")
        assert {s: one.value for s, one in ours.items()} == fit.params
        assert {s: (one.low, one.high) for s, one in ours.items()} == {s: fit.interval(s) for s in fit.params}
        assert predicted.low < predicted.value < predicted.high
        assert (fit.bootstrap.kind, fit.bootstrap.clusters) == ("clusters", 6)
        chains = {one.parameter: one for one in found if (one.law, one.method) == (law, "chains")}
        # A fit ends the interval of E at the smallest loss.
        alike = set(fit.params) - {"E"}
        assert {s: (chains[s].low, chains[s].high) for s in alike} == {s: fit.interval(s) for s in alike}
    methods = {law: {one.method for one in found if one.law == law} for law in ("kumar_ptq", "chinchilla")}
    assert methods["kumar_ptq"] == {"ours", "chains", "runs", "rows", "percentile", "stretched"}
    assert methods["chinchilla"] == methods["kumar_ptq"] - {"rows"}
    assert len(found) == 4 * 6 + 5 * 5 + 2


def test_sizes_are_left_out_where_there_are_enough():
    frame = study(LADDER)
    fitted = prepare("kumar_ptq", frame, Options())
    made = dict(coverage._methods(analysis.fit("kumar_ptq", frame, bootstrap=5), fitted))
    assert list(made) == ["ours", "chains", "sizes", "runs", "rows", "percentile", "stretched"]
    for symbol, interval in made["sizes"].items():
        ours = made["ours"][symbol]
        assert (interval.low, interval.high) == pytest.approx((ours.low, ours.high), rel=1e-6)
        assert interval != made["chains"][symbol]


@pytest.mark.slow
def test_command_writes_a_table_and_a_page(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(coverage, "DESIGNS", (SMALL, Design(name="tiny", sizes=(23_600, 82_900), seeds=1)))
    monkeypatch.setattr(coverage, "NOISES", (CHANCE,))
    out = tmp_path / "results" / "coverage"
    assert main(["coverage", "--studies", "2", "--draws", "20", "--out", str(out)]) == 0
    captured = capsys.readouterr()
    assert captured.out.splitlines() == [f"coverage: {out / name}" for name in ("coverage.csv", "README.md")]
    assert "small, chance: 2 studies" in captured.err
    with (out / "coverage.csv").open() as file:
        records = list(csv.DictReader(file))
    assert {r["design"] for r in records} == {"small"}  # two sizes do not make a loss law: two studies without a fit
    assert {int(r["studies"]) for r in records} == {2}
    for r in records:
        share = int(r["covered"]) / 2
        assert float(r["coverage"]) == pytest.approx(share, abs=1e-4)
        assert float(r["mc_se"]) == pytest.approx(np.sqrt(share * (1 - share) / 2), abs=1e-4)
    page = (out / "README.md").read_text()
    for text in (
        "--studies 2 --seed 0 --draws 20",
        "commit ",
        "2 studies gave no fit",
        "| gamma_D |",
        "| chains |",
    ):
        assert text in page
    before = (out / "coverage.csv").read_bytes()
    assert main(["coverage", "--studies", "2", "--draws", "20", "--out", str(out)]) == 0
    assert (out / "coverage.csv").read_bytes() == before
    assert sorted(p.name for p in out.iterdir()) == ["README.md", "coverage.csv"]


@pytest.mark.parametrize("arguments", [["--studies", "0"], ["--draws", "1"], ["--seed", "-1"], ["--out", "{file}/x"]])
def test_faults_are_one_line(arguments, tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    assert main(["coverage", *(a.format(file=tmp_path / "file") for a in arguments)]) == 1
    err = capsys.readouterr().err
    assert err.startswith("python -m analysis coverage: ") and err.count("\n") == 1
