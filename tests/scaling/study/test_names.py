from scaling.study.names import named, short_names


def test_names_say_what_varies_and_no_more(make_run):
    grid = [(f"precision.weights={w}", f"data.tokens={d}") for w in ("bf16", "int4") for d in (2560, 5120)]
    runs = [make_run(*point) for point in grid]
    assert short_names(runs) == [f"D={d} w{w}a16kv16" for w in (16, 4) for d in ("2.6k", "5.1k")]
    assert short_names(runs[:1]) == [None]
    assert short_names([runs[0], runs[1]]) == ["D=2.6k", "D=5.1k"]


def test_what_has_no_short_word_is_named_by_its_setting(make_run):
    runs = [make_run(f"optimizer.lr={lr}", "seed=1") for lr in (1e-3, 2e-3)]
    assert short_names(runs) == ["lr=0.001", "lr=0.002"]
    # Two digits would not distinguish these, and a format's bits do not distinguish granularities.
    runs = [make_run(f"data.tokens={d}") for d in (5120, 5248)] + [make_run("data.tokens=5248", "data.seed=1")]
    assert short_names(runs) == ["D=5.1k seed=0", "D=5.2k seed=0", "D=5.2k seed=1"]
    runs = [make_run("precision.weights=int4", f"precision.granularity_weights={g}") for g in ("channel", "tensor")]
    assert short_names(runs) == ["granularity_weights=channel", "granularity_weights=tensor"]
    assert short_names([make_run("seed=1"), make_run("seed=1", "seed_data=2")]) == ["s1.1", "s1.2"]


def test_a_name_that_is_given_stays_and_no_id_moves(make_run):
    runs = [make_run("seed=0"), make_run("seed=1", "tracking.name=mine"), make_run("seed=2")]
    found = named(runs)
    assert [run.tracking.name for run in found] == ["s0", "mine", "s2"]
    assert [run.run_id for run in found] == [run.run_id for run in runs]
