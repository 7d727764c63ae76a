"""`next`: components of the scatter, expected half-widths, and the runs that are chosen."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from scipy import stats

from analysis import table
from analysis.__main__ import main
from analysis.fitting import store
from analysis.planning.next_runs.advice import Request, advise
from analysis.planning.next_runs.candidates import LADDER, OTHERS, Cells, Limits, cells_of, model_of, sizes_of
from analysis.planning.next_runs.components import Components, estimate, fitted, scatter_of_sizes
from analysis.planning.next_runs.criterion import Lack, Model, components_for, parts
from analysis.planning.next_runs.rows import Choice, Rows, rows_of
from analysis.planning.next_runs.search import best
from analysis.planning.next_runs.targets import target_of
from analysis.planning.predict import predict

REPOSITORY = Path(__file__).parents[3]
RUNS = REPOSITORY / "results/overtraining/runs.csv"
SEVEN = "24k,83k,201k,378k,664k,800k,1.6M"


@pytest.fixture(scope="module")
def frame():
    return table.load(RUNS)


@pytest.fixture(scope="module")
def known(frame):
    """Rows, components and constants of the committed table."""
    rows = rows_of(frame, Choice())
    return rows, *parts(rows)[:2]


def components(**sds) -> Components:
    return Components(
        **dict.fromkeys(("row", "run", "cell", "size", "size_slope", "common"), 0.0) | {"middle": 0.0} | sds
    )


def grid(log_N, log_D, of: Components, widths=(4.0,), lack: Lack | None = None) -> Model:
    n, d = (v.ravel() for v in np.meshgrid(log_N, log_D, indexing="ij"))
    middle = (float(np.mean(log_N)), float(np.mean(log_D)), float(np.mean(widths)))
    return Model(log_N=n, log_D=d, widths=np.array(widths), components=of, middle=middle, lack=lack or Lack())


def rows_like(n, d, y, P=None) -> Rows:
    each = np.arange(len(n))
    P = np.full(len(n), 4.0) if P is None else P
    return Rows(log_gap=y, log_N=n, log_D=d, P=P, run=each, trunk=each, left_out={})


def test_half_width_of_a_balanced_design_by_hand(known):
    rows, _, law = known
    log_N, log_D, r = np.array([10.0, 11.0, 12.0]), np.array([15.0, 17.0]), 2
    model = grid(log_N, log_D, components(row=0.1, run=0.2, size=0.3, size_slope=0.05, middle=16.0))
    counts = np.full(6, r)
    t = stats.t.ppf(0.975, 2)
    of_runs = (0.1**2 + 0.2**2) / r
    # gamma_D: the slope of runs, and of sizes, whose slopes are independent.
    by_hand = t * np.sqrt(of_runs / (3 * 2.0) + 0.05**2 / 3)
    assert model.width(counts, target_of("gamma_D", rows, law)).half == pytest.approx(by_hand, rel=1e-9)
    # gamma_N: means of sizes about a line in ln N with a sum of squares of 2.
    by_hand = t * np.sqrt((of_runs / 2 + 0.3**2) / 2.0)
    assert model.width(counts, target_of("gamma_N", rows, law)).half == pytest.approx(by_hand, rel=1e-9)


def test_what_all_sizes_share_at_one_D_is_no_smaller_with_more_sizes(known):
    rows, _, law = known
    target = target_of("gamma_D", rows, law)
    se = [
        grid(10 + np.arange(k), np.array([15.0, 17.0]), components(row=1e-3, common=0.1))
        .width(np.full(2 * k, 5), target)
        .se
        for k in (3, 6)
    ]
    assert se == pytest.approx([0.1 / np.sqrt(2)] * 2, rel=1e-3)


def test_bias_by_hand_of_a_curvature(known):
    """Ordinary least squares on D at -1, 0, 3: the slope of d^2 about the middle is that of a regression."""
    rows, _, law = known
    d = np.array([15.0, 16.0, 19.0])
    model = grid(np.array([10.0, 11.0, 12.0]), d, components(row=0.1), lack=Lack(curvature=0.02))
    middle = d.mean()
    slope = np.polyfit(d, 0.02 * (d - middle) ** 2, 1)[0]
    assert model.width(np.ones(9), target_of("gamma_D", rows, law)).bias == pytest.approx(abs(slope), rel=1e-6)


def test_mixed_model_equations_are_generalized_least_squares(known):
    """Another way to the same: the inverse of the rows' covariance, of the committed table as it is."""
    rows, found, law = known
    cells = rows.cells()
    n, d, runs = (np.array(v) for v in zip(*cells, strict=True))
    model = Model(log_N=n, log_D=d, widths=rows.widths, components=found, middle=rows.middle)
    covariance = estimate(rows, found)[1]
    for name, k, factor in (("C", 0, 1), ("gamma_D", 1, 1), ("gamma_N", 2, 1), ("gamma_post", 3, law[3] ** -2)):
        se = model.width(runs, target_of(name, rows, law)).se
        assert se == pytest.approx(factor * np.sqrt(covariance[k, k]), rel=1e-4)


SQUARE = "gap = B * D**g / N**h * exp(-(P_post / p)**2)"
"""Another law of gaps, by its equation."""


@pytest.mark.parametrize("name", ["ouyang", SQUARE])
def test_the_share_of_another_law_is_generalized_least_squares(frame, name):
    """What differs between the widths of one run counts too; the law that differs in bits alone shows it."""
    rows = rows_of(frame, Choice(bits=(3, 6)))
    found, law, _ = parts(rows)
    target = target_of(f"law:{name}", rows, law)
    found = components_for(target, rows, found)
    n, d, runs = (np.array(v) for v in zip(*rows.cells(), strict=True))
    model = Model(log_N=n, log_D=d, widths=rows.widths, components=found, middle=rows.middle)
    X = target.columns(rows)
    assert len(rows) == len(rows.widths) * runs.sum()
    assert model.width(runs, target).se == pytest.approx(np.sqrt(estimate(rows, found, X)[1][4, 4]), rel=1e-4)


@pytest.mark.parametrize(("truth", "share"), [(SQUARE, 1.0), ("kumar_ptq", 0.0)])
def test_the_share_of_another_law_is_one_where_it_is_planted(truth, share):
    draw = np.random.default_rng(1)
    n, d, P = (v.ravel() for v in np.meshgrid(10 + 0.6 * np.arange(5), 15 + 0.7 * np.arange(5), [3.0, 4.0, 5.0, 6.0]))
    of_bits = (P / 3) ** 2 if truth == SQUARE else P / 0.6
    y = 0.2 * d - 0.4 * n - of_bits + 0.05 * draw.standard_normal(len(n))
    run = np.unique(np.stack([n, d]), axis=1, return_inverse=True)[1].ravel()
    rows = Rows(log_gap=y, log_N=n, log_D=d, P=P, run=run, trunk=run, left_out={})
    found, law, _ = parts(rows)
    target = target_of(f"law:{SQUARE}", rows, law)
    value, covariance = estimate(rows, components_for(target, rows, found), target.columns(rows))
    se = np.sqrt(covariance[4, 4])
    assert se < 0.05 and abs(value[4] - share) < 3 * se


def test_components_are_recovered_from_planted_rows():
    draw = np.random.default_rng(0)
    truth = components(row=0.1, size=0.3, size_slope=0.06, common=0.12, middle=16.0)
    n, d = (v.ravel().repeat(2) for v in np.meshgrid(10 + 0.3 * np.arange(12), 14 + 0.3 * np.arange(12), indexing="ij"))
    _, size, tokens = (None, *(np.unique(v, return_inverse=True)[1] for v in (n, d)))
    y = 1 + 0.3 * d - 0.4 * n + truth.row * draw.standard_normal(len(n)) + truth.size * draw.standard_normal(12)[size]
    y += truth.size_slope * draw.standard_normal(12)[size] * (d - 16) + truth.common * draw.standard_normal(12)[tokens]
    made = fitted(rows_like(n, d, y), middle=16.0)
    total = np.hypot(made.row, np.hypot(made.run, made.cell))
    assert total == pytest.approx(0.1, rel=0.1)
    for name in ("size", "size_slope", "common"):  # an sd from twelve draws is good to 21%
        assert getattr(made, name) == pytest.approx(getattr(truth, name), rel=0.45), name


def test_components_of_the_committed_table_are_those_of_an_independent_look(known):
    rows, found, _ = known
    run = np.hypot(found.run, found.row / np.sqrt(len(rows.widths)))  # of a run's mean over widths
    assert [run, found.size, found.size_slope, found.common] == pytest.approx([0.071, 0.13, 0.038, 0.047], abs=0.001)


def test_known_answers_on_the_committed_table(frame):
    made = {name: advise(frame, Request(target=name, flops=2e14, sizes=SEVEN)) for name in ("gamma_D", "gamma_N")}
    for name, now, repeated, seven in (("gamma_D", 0.077, 0.073, 0.072), ("gamma_N", 0.143, 0.141, 0.095)):
        one = made[name]
        assert [one.now.half, one.repeated.width.half] == pytest.approx([now, repeated], abs=0.002)
        assert one.chosen.width.half == pytest.approx(seven, abs=0.004)
        assert one.chosen.cost <= 2e14
    sizes = {name for name, *_ in made["gamma_N"].runs}
    assert {"800k", "1.6M"} <= sizes  # more sizes
    assert made["gamma_N"].these_sizes.half > 0.95 * made["gamma_N"].now.half
    assert all(D >= 4e6 * 0.98 and D / N >= 9.8 for _, N, D, *_ in made["gamma_D"].runs)


def test_small_models_are_repeated_where_no_size_is_new(known, frame):
    rows, found, law = known
    cells = cells_of(rows, frame, sizes=sizes_of("24k,83k,201k,378k,664k", rows), limits=Limits())
    model, target = model_of(cells, rows, components=found), target_of("gamma_D", rows, law)
    made = best(model, cells, target, 5e13)
    again = model.width(2 * cells.runs, target).half
    now = model.width(cells.runs, target).half
    added = np.bincount((np.exp(cells.log_N) > 3e5).astype(int), made.added, 2)
    assert added[0] > added[1]  # runs of small models, below a tenth of what all cells again cost, give half of it
    assert made.cost < 0.1 * cells.price(cells.runs)[0] and now - made.width.half > 0.4 * (now - again)


def test_more_runs_never_widen(known):
    rows, found, law = known
    draw = np.random.default_rng(1)
    model = grid(rows.sizes, np.unique(rows.log_D), found, widths=(4.0, 5.0))
    for name in ("gamma_D", "gamma_N", "gamma_post", "gap:N=1e6,D=1e8,P=4", "slope:D=3e7", "curvature"):
        target = target_of(name, rows, law)
        counts = draw.integers(1, 3, 30)
        se = []
        for _ in range(8):
            se.append(model.width(counts, target).se)
            counts = counts + draw.integers(0, 2, 30)
        assert np.all(np.diff(se) <= 1e-9), name


def test_predictions_at_a_new_size_keep_the_scatter_of_sizes(known):
    rows, found, law = known
    cells = rows.cells()
    n, d, runs = (np.array(v) for v in zip(*cells, strict=True))
    model = Model(log_N=n, log_D=d, widths=rows.widths, components=found, middle=rows.middle)
    D = np.exp(d[-1])
    new = model.width(runs * 1e9, target_of(f"gap:N=1e6,D={D},P=4", rows, law)).se
    old = model.width(runs * 1e9, target_of(f"gap:N={np.exp(n[-1])},D={D},P=4", rows, law)).se
    assert new > found.size and old < 0.01


def test_trunks_are_counted_once():
    n, d = np.log([1e5, 1e5, 2e5]), np.log([1e6, 4e6, 4e6])
    cost = 6 * np.exp(n + d)
    common = {"log_N": n, "log_D": d, "runs": np.zeros(3, int), "open_": np.ones(3, bool), "cost": cost, "flops": cost}
    alone, shared = (Cells(**common, names={}, trunk=trunk) for trunk in (None, 0.1))
    added = np.array([2, 1, 1])
    assert alone.price(added)[0] == pytest.approx(added @ cost)
    # Seed one of the first size goes to 4M and holds the run to 1M; seed two goes to 1M alone.
    assert shared.price(added)[0] == pytest.approx(0.1 * added @ cost + 0.9 * (cost[1] + cost[0] + cost[2]))


def test_a_thousand_candidates_are_a_matter_of_seconds(known, frame):
    import time

    rows, found, law = known
    cells = cells_of(rows, frame, sizes=sizes_of(SEVEN, rows), limits=Limits())
    model = model_of(cells, rows, components=found)
    tried = cells.runs + np.random.default_rng(0).integers(0, 3, (1000, len(cells.runs)))
    begin = time.process_time()
    model.widths_of(tried, target_of("gamma_D", rows, law))
    assert time.process_time() - begin < 5


def test_a_second_look_costs_width(known):
    rows, found, law = known
    levels = [Request(target="gamma_N", flops=1.0, second_look=second).level for second in (False, True)]
    assert levels == [0.95, 0.96]
    half = [
        dataclasses.replace(grid(rows.sizes, np.unique(rows.log_D), found), level=level)
        .width(np.ones(30), target_of("gamma_N", rows, law))
        .half
        for level in levels
    ]
    ratio = stats.t.ppf(0.98, len(rows.sizes) - 1) / stats.t.ppf(0.975, len(rows.sizes) - 1)
    assert half[1] / half[0] == pytest.approx(ratio)


def test_sizes_of_the_ladder_are_those_of_the_configs():
    """By the rule of the transformer's matrices: four of attention and three of the feed-forward."""
    for name, N in (LADDER | OTHERS).items():
        shape = yaml.safe_load((REPOSITORY / f"configs/model/{name}.yaml").read_text())
        d, wide = shape["d_model"], shape["d_ff"] or 16 * round(8 * shape["d_model"] / 3 / 16)
        assert shape["n_layers"] * (4 * d * d + 3 * d * wide) == N, name


def test_the_study_that_is_written_can_be_planned(tmp_path, monkeypatch, capsys):
    from scaling.config import compose
    from scaling.sweep import load

    configs = tmp_path / "configs"
    shutil.copytree(REPOSITORY / "configs", configs, symlinks=True, ignore=shutil.ignore_patterns("sweeps"))
    (configs / "sweeps").mkdir()
    monkeypatch.setattr(compose, "CONFIGS", configs)
    path = configs / "sweeps/next_x.yaml"
    command = ["next", str(REPOSITORY / "results/overtraining/fits.json"), "--target", "gamma_N", "--flops", "2e14"]
    assert main([*command, "--sizes", SEVEN, "--out", str(path)]) == 0
    lines = capsys.readouterr().out
    text = path.read_text()
    assert all(f"# {word}" in text for word in ("Question", "Command", "Cost", "Expected", "@package _global_"))
    assert max(map(len, text.splitlines())) <= 120
    runs = load("next_x", []).runs
    there = pd.read_csv(RUNS, usecols=["seed_init", "run_id"])
    seeds = {run.seed_init for run in runs}
    assert not seeds & set(there["seed_init"]) and len(runs) == int(text.split("# Cost")[1].split()[0])
    assert "1.6M" in lines and "More sizes do" in lines
    assert main([*command, "--out", str(path)]) == 1  # what is there is kept
    assert path.read_text() == text


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--target", "gamma_X", "--flops", "1e15"], "gamma_X"),
        (["--target", "gap:N=1e6", "--flops", "1e15"], "gap:N=VALUE,D=VALUE,P=VALUE"),
        (["--target", "gamma_D", "--flops", "1e3"], "too small for any candidate"),
        (["--target", "gamma_D", "--flops", "-1"], "above zero"),
        (["--target", "gamma_D", "--flops", "1e15", "--sizes", "9k"], "9k"),
        (["--target", "gamma_post", "--flops", "1e15", "--bits", "4", "4"], "one width"),
        (["--target", "gamma_D", "--flops", "1e15", "--filter", "N > 6e5"], "two or more sizes"),
        (["--claim", "nonsense", "--flops", "1e15"], "nonsense"),
        (["--target", "law:kumar_ptq", "--flops", "1e15"], "kumar_ptq itself"),
        (["--target", "law:ouyang", "--flops", "1e15"], "says the same as kumar_ptq"),  # at two widths
        (["--target", "law:chinchilla", "--flops", "1e15"], "a law of loss in N, D; expected one of gap"),
        (["--target", "law:gaussian", "--flops", "1e15"], "sigma2_post; expected one of gap in N, D, P_post"),
        (["--target", "law:", "--flops", "1e15"], "law:NAME"),
        (["--target", "gamma_D", "--flops", "1e15", "--out", "study.txt"], ".yaml"),
    ],
)
def test_bad_input_is_one_line(options, said, capsys):
    assert main(["next", str(RUNS), *options]) == 1
    err = [line for line in capsys.readouterr().err.splitlines() if "python -m analysis next:" in line]
    assert len(err) == 1 and said in err[0]


def test_a_table_without_gaps_is_one_line(tmp_path, capsys):
    path = tmp_path / "t.csv"
    path.write_text("N,D,loss,P_post\n1e5,1e7,3.0,16\n2e5,1e7,2.9,16\n")
    assert main(["next", str(path), "--target", "gamma_D", "--flops", "1e15"]) == 1
    assert "gap: the table has no such column" in capsys.readouterr().err


def test_hours_need_seconds(frame, known):
    rows, found, law = known
    cells = cells_of(rows, frame, sizes=sizes_of(None, rows), limits=Limits(), hours=True)
    own = {(n, d): h for n, d, h in zip(cells.log_N, cells.log_D, cells.cost, strict=True)}
    whole = frame[frame["ptq"].isna()]
    for (n, d), hours in list(own.items())[::7]:
        same = whole[np.isclose(np.log(whole["N"]), n) & np.isclose(np.log(whole["D"]), d, atol=1e-3)]
        if len(same):
            assert hours == pytest.approx(same["seconds"].mean() / 3600, rel=0.25)
    model = model_of(cells, rows, components=found)
    assert best(model, cells, target_of("gamma_D", rows, law), 0.5).cost <= 0.5
    with pytest.raises(ValueError, match="seconds"):
        cells_of(rows, frame.drop(columns="seconds"), sizes=LADDER, limits=Limits(), hours=True)


def test_prediction_intervals_at_a_new_size_hold_the_scatter_of_sizes(known, frame):
    rows, found, _ = known
    of_sizes = scatter_of_sizes(rows, found)
    D = float(np.exp(found.middle))
    assert of_sizes(2e6, D) == pytest.approx(found.size) and of_sizes(663_552, D) == 0.0
    assert of_sizes(2e6, np.e * D) == pytest.approx(np.hypot(found.size, found.size_slope))
    fits = store.read(RUNS.with_name("fits.json")).fits
    gap = {}
    for N in (2e6, 663_552):
        said = {"N": N, "D": D, "widths": {}, "post": 4.0, "one_run": True}
        without, with_sizes = (predict(fits, **said, scatter_of_sizes=s).gap for s in (None, of_sizes))
        gap[N] = np.log(without.high / without.value), np.log(with_sizes.high / with_sizes.value)
    assert gap[663_552][0] == gap[663_552][1]
    t = next(fit for fit in fits.values() if fit.law.response == "gap").bootstrap.t
    assert gap[2e6][1] ** 2 - gap[2e6][0] ** 2 == pytest.approx((t * found.size) ** 2, rel=1e-6)


def test_predict_says_where_it_lacks_the_table(tmp_path, capsys):
    shutil.copy(RUNS.with_name("fits.json"), tmp_path)
    command = ["predict", str(tmp_path / "fits.json"), "--N", "2e6", "--D", "3e7", "--post", "4", "--one-run"]
    assert main(command) == 0
    alone = capsys.readouterr()
    assert "without the scatter of sizes" in alone.err
    command[1] = str(RUNS.with_name("fits.json"))
    assert main(command) == 0
    beside = capsys.readouterr()
    assert not beside.err and beside.out != alone.out
