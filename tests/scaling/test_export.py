"""A model that was trained here, exported and measured as a checkpoint: the same tokens, losses, matrices and gaps."""

import json

import pytest
import torch

from scaling.config.compose import composed_as
from scaling.config.from_dict import build
from scaling.config.pretrained.measured_run import MeasureJob
from scaling.errors import InputError
from scaling.export import _tokenizer, export
from scaling.pretrained.measure import measure_all
from scaling.pretrained.presets import runs_of
from scaling.records.loaded_run import load_run
from scaling.records.run_folder import RunFolder
from scaling.training.loop import train_stack

MODEL = ("model.extra_norm=false", "model.n_layers=2")
PTQ = ("ptq=all", "ptq.formats=[int4]", "ptq.granularities=[channel,tensor]", "ptq.calibration_tokens=512")
SHARED = (
    *("data.corpus.alphabet=8", "data.corpus.documents=400", "data.corpus.document_tokens=256"),
    *("data.validation_documents=64", "data.eval_windows=64", "data.sequence_length=32", "data.batch_tokens=128"),
)


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """Forty documents of words, one of which spells out the separator, and bytes of several lengths."""
    path = tmp_path_factory.mktemp("text") / "words.txt"
    words = ["grün", "and", "blue", "€", "日本", "<|endoftext|>", "the", "sea", "\u00ff", "\x00"]
    generator = torch.Generator().manual_seed(0)
    lines = (" ".join(words[i] for i in torch.randint(0, 10, (80,), generator=generator)) for _ in range(40))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def on_text(text, tokenizer):
    corpus = (f"data.corpus.paths=[{text}]", "data.corpus.document=line", f"data/tokenizer={tokenizer}")
    sizes = ("data.sequence_length=32", "data.batch_tokens=128", "data.eval_windows=8", "data.validation_documents=8")
    small = ("data.tokenizer.vocab_size=280",) if tokenizer == "bpe" else ()
    return ("data=text", *corpus, *sizes, *small)


def measured(folder, run, *overrides):
    place = (f"runtime.out={run.runtime.out}", f"runtime.cache={run.runtime.cache}", "runtime.device=cpu")
    asked = ("study=exported", f"pretrained.path={folder}", "tracking=off", "runtime.threads=1", *place, *PTQ)
    job = build(MeasureJob, composed_as("pretrained", [*asked, *overrides]))
    (one,) = runs_of(job)
    assert measure_all([one], job.pretrained) == {}
    return one, RunFolder(one)


@pytest.mark.parametrize("data", ["synthetic", "bytes", "bpe"])
def test_the_same_losses_and_gaps_as_in_its_own_run(make_run, tmp_path, text, data):
    of_data = ("data=synthetic", *SHARED) if data == "synthetic" else on_text(text, data)
    changes = [o for o in of_data if not o.startswith("data=synthetic")]
    tied = f"model.tied_head={str(data == 'bpe').lower()}"
    if data != "synthetic":
        # `make_run` starts from synthetic text: its settings do not belong to this one.
        run = _run_on_text(make_run, tmp_path, of_data, tied)
    else:
        run = make_run(*MODEL, tied, *changes, *PTQ)
    assert train_stack([run]) == {}
    loaded = load_run(RunFolder(run).path)
    folder = tmp_path / "exported"
    export(loaded, folder, tmp_path / "none" if data != "bpe" else _cache(run))
    one, records = measured(folder, run, *of_data)
    own, theirs = RunFolder(run), records.result()
    assert (theirs["eval_sha"], theirs["data_sha"]) == (own.result()["eval_sha"], own.result()["data_sha"])
    assert (one.D, one.checkpoint.schedule) == (run.D, run.schedule)
    assert theirs["evaluations"][0]["loss"] == pytest.approx(own.result()["evaluations"][-1]["loss"], abs=2e-6)
    rows = {row["setting"]: row for row in own.ptq() if row["tokens_seen"] == run.D}
    assert rows.keys() == {row["setting"] for row in records.ptq()} and len(rows) == 6
    for row in records.ptq():
        wanted = rows[row["setting"]]
        assert row["gap"] == pytest.approx(wanted["gap"], abs=2e-4), row["setting"]
        assert row["calib_sha"] == wanted["calib_sha"]


def _cache(run):
    from pathlib import Path

    return Path(run.runtime.cache)


def _run_on_text(make_run, tmp_path, of_data, tied):
    from scaling.config.run import build_run

    like = make_run()
    place = (f"runtime.out={tmp_path / 'outputs'}", f"runtime.cache={like.runtime.cache}", "runtime.device=cpu")
    small = ("model=2k", "tracking=off", "runtime.threads=1", "runtime.compile=off", "data.tokens=5120")
    settings = (*small, "data.repeat=true", "schedule.warmup_tokens=512", *MODEL, tied, *of_data, *PTQ, *place)
    return build_run(composed_as("train", settings))


def test_the_layout_is_that_of_llama(make_run, tmp_path):
    run = make_run(*MODEL, "model.tied_head=false", "ptq=none")
    assert train_stack([run]) == {}
    export(load_run(RunFolder(run).path), tmp_path / "exported", tmp_path)
    from transformers import AutoModelForCausalLM

    model, found = AutoModelForCausalLM.from_pretrained(tmp_path / "exported", output_loading_info=True)
    assert type(model).__name__ == "LlamaForCausalLM"
    assert not found["missing_keys"] and not found["unexpected_keys"]
    assert model.config.rope_parameters["rope_theta"] == run.model.rope_base
    assert json.loads((tmp_path / "exported/training.json").read_text())["tokens"] == run.D
    assert sorted(p.name for p in tmp_path.iterdir() if p.name.startswith(".")) == []


def test_what_llama_has_no_place_for_is_a_line(make_run, tmp_path):
    for overrides, line in (
        (("model.extra_norm=true",), "model.extra_norm=true: Llama has no norm"),
        ((*MODEL, "precision.kv=int4"), "was trained with quantized parts"),
    ):
        run = make_run(*overrides, "ptq=none")
        assert train_stack([run]) == {}
        with pytest.raises(InputError, match=line):
            export(load_run(RunFolder(run).path), tmp_path / "exported", tmp_path)
    assert not (tmp_path / "exported").exists()


def test_a_folder_that_is_there_is_left_alone(make_run, tmp_path):
    run = make_run(*MODEL, "ptq=none")
    assert train_stack([run]) == {}
    (tmp_path / "exported").mkdir()
    with pytest.raises(InputError, match="is there already"):
        export(load_run(RunFolder(run).path), tmp_path / "exported", tmp_path)
    assert _tokenizer(load_run(RunFolder(run).path), tmp_path) == {}
