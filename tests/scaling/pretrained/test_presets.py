"""Series of checkpoints: names of revisions, tokens, siblings, local paths; each preset with what its pages say."""

import pytest

from scaling.config.compose import composed_as
from scaling.config.from_dict import build, plain
from scaling.config.pretrained.measured_run import MeasureJob, build_stored
from scaling.errors import InputError
from scaling.pretrained.presets import runs_of, steps_of
from tests.conftest import REPOSITORY

PRESETS = sorted(p.stem for p in (REPOSITORY / "configs/pretrained").glob("*.yaml") if p.stem != "common")
PLACE = ("study=x", "tracking=off", "data=synthetic")


def job(*overrides):
    return build(MeasureJob, composed_as("pretrained", [*PLACE, *overrides]))


def checkpoints(*overrides):
    return {run.checkpoint.revision: run.checkpoint.tokens for run in runs_of(job(*overrides))}


@pytest.mark.parametrize("name", [p for p in PRESETS if p not in ("local", "smollm2-135m-gguf")])
def test_every_preset_makes_runs(name):
    asked = job(f"pretrained={name}")
    series = asked.pretrained
    steps = steps_of(series)
    assert (series.name == name and series.licence) or series.files == "folders"
    if steps:
        runs = runs_of(job(f"pretrained={name}", "revisions=all"))
        assert len({run.run_id for run in runs}) == len(runs) == len(steps)
        tokens = [run.D for run in runs if run.D]
        assert tokens == sorted(tokens)
        for run in runs[:2]:
            assert build_stored(plain(run)).run_id == run.run_id


@pytest.mark.parametrize(
    ("series", "asked", "found"),
    [
        (
            "pythia-160m",
            "[0,1,512,1000,143000]",
            {
                "step0": None,
                "step1": 2097152,
                "step512": 512 * 2097152,
                "step1000": 2097152000,
                "step143000": 299892736000,
            },
        ),
        ("pythia-14m", "[step1000]", {"step1000": 2097152000}),
        (
            "olmo2-1b",
            "[10000,1907359]",
            {"stage1-step10000-tokens21B": 20971520000, "stage1-step1907359-tokens4001B": 1907359 * 2097152},
        ),
        ("olmo2-7b", "[stage1-step1000-tokens5B]", {"stage1-step1000-tokens5B": 4194304000}),
        ("olmo2-13b", "[1000]", {"stage1-step1000-tokens9B": 8388608000}),
        ("smollm3-3b", "[40000]", {"stage1-step-40000": 94371840000}),
        ("smollm3-3b", "[stage2-step-3480000]", {"stage2-step-3480000": 3480000 * 2359296}),
        ("smollm2-135m", "[240000]", {"step-240000": 240000 * 1048576}),
        ("apertus-8b", "[step50000-tokens210B]", {"step50000-tokens210B": 210 * 10**9}),
        ("amber-7b", "[ckpt_007,358]", {"ckpt_007": None, "ckpt_358": None}),
        ("midtrain-bridge-1b-wsd", "[step_5000]", {"step_5000": 5000 * 1966080}),
        ("pythia-160m", "[]", {"step143000": 299892736000}),
        ("olmo2-32b", "[]", {"main": None}),
    ],
)
def test_names_and_tokens(series, asked, found):
    assert checkpoints(f"pretrained={series}", f"revisions={asked}") == found


def test_pythia_has_154_checkpoints():
    assert len(checkpoints("pretrained=pythia-70m", "revisions=all")) == 154


def test_siblings(tmp_path):
    (run,) = runs_of(job("pretrained=pythia-160m", "pretrained.variant=seed3", "revisions=[1000]"))
    assert run.checkpoint.source == "EleutherAI/pythia-160m-seed3@step1000"
    assert run.checkpoint.series == "pythia-160m-seed3" and run.run_id.startswith("pythia-160m-seed3-step1000-")
    with pytest.raises(InputError, match=r"variant=dedupd: no such sibling of pythia-160m; did you mean deduped\?"):
        runs_of(job("pretrained=pythia-160m", "pretrained.variant=dedupd"))


@pytest.mark.parametrize(
    ("asked", "line"),
    [
        ("[1500]", r"revisions\[0\]=1500: no such revision of pythia-160m; the nearest is 1000, step1000"),
        ("[1000,step14300]", r"revisions\[1\]=step14300: no such revision of pythia-160m; did you mean step143000\?"),
        ("[main]", r"revisions\[0\]=main: no such"),
    ],
)
def test_a_revision_that_is_none_is_named_with_the_nearest(asked, line):
    with pytest.raises(InputError, match=line):
        runs_of(job("pretrained=pythia-160m", f"revisions={asked}"))


def test_the_last_may_have_another_name():
    asked = ("pretrained=pythia-160m", "pretrained.final=main", "revisions=[142000,143000]")
    assert checkpoints(*asked) == {"step142000": 142000 * 2097152, "main": 299892736000}


@pytest.fixture
def folders(tmp_path):
    for step in (9, 10, 100):
        (tmp_path / f"step{step}").mkdir()
        (tmp_path / f"step{step}" / "config.json").write_text(f'{{"step": {step}}}')
    return tmp_path


def test_local_folders_come_in_order_with_the_tokens_of_their_numbers(folders):
    asked = f"pretrained.path=[{folders}/step*]"
    assert list(checkpoints(asked, "pretrained.tokens_per_step=1000").items()) == [
        ("step9", 9000),
        ("step10", 10000),
        ("step100", 100000),
    ]
    assert list(checkpoints(asked, "pretrained.tokens=[3,5,7]").values()) == [3, 5, 7]
    assert list(checkpoints(asked, "revisions=[step10,100]")) == ["step10", "step100"]
    assert list(checkpoints(asked, "revisions=[step9]").values()) == [None]


def test_a_local_id_follows_the_files_and_not_the_place(folders, tmp_path):
    (before,) = runs_of(job(f"pretrained.path={folders}/step9"))
    moved = tmp_path / "elsewhere"
    (folders / "step9").rename(moved)
    (again,) = runs_of(job(f"pretrained.path={moved}"))
    assert again.run_id.split("-")[-1] == before.run_id.split("-")[-1]
    (moved / "config.json").write_text("{}")
    (changed,) = runs_of(job(f"pretrained.path={moved}"))
    assert changed.run_id != again.run_id


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        ((), r"pretrained.path=\[\]: name folders"),
        (("pretrained.path=nowhere*",), "pretrained.path=nowhere\\*: no such folder or file"),
        (("pretrained.path=package:nothing_there/x.gguf",), "no such package"),
        (("pretrained=olmo2-7b", "revisions=all"), "steps of olmo2-7b are not known here"),
        (("pretrained=amber-7b", "revisions=[1,2]", "pretrained.tokens=[5]"), "1 numbers for 2 revisions"),
        (("pretrained=midtrain-bridge-1b-wsd",), "are folders; name them"),
        (("pretrained=pythia-14m", "precision=w4"), "precision: the model is there already"),
        (("pretrained=pythia-14m", "pretrained.steps=[1-2]"), "pretrained.steps=1-2: expected"),
    ],
)
def test_bad_input_is_a_line(overrides, line):
    with pytest.raises(InputError, match=line):
        runs_of(job(*overrides))


def test_tokens_are_part_of_the_identity_and_quantizations_are_not():
    def run_id(*overrides):
        return runs_of(job("pretrained=amber-7b", "revisions=[1]", *overrides))[0].run_id

    assert run_id("ptq=gptq") == run_id("ptq=rtn", "ptq.formats=[nf4]", "runtime.threads=3")
    assert (
        len(
            {
                run_id(),
                run_id("pretrained.tokens=[7]"),
                run_id("data.sequence_length=64"),
                run_id("pretrained.start_token=true"),
            }
        )
        == 4
    )
