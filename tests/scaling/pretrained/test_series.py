"""A series made with transformers, from training to a fitted law and its figures."""

import json
import subprocess
import sys
import sysconfig

import pandas as pd
import pytest
import torch

from scaling.export import END, _of_bytes
from tests.conftest import REPOSITORY

BATCH, LENGTH = 16, 64
STEPS = (16, 32, 64, 128, 256, 512)


@pytest.fixture(scope="module")
def series(tmp_path_factory):
    """Folders of two small GPT-NeoX models, each at six token counts of a constant rate, trained on Python code."""
    from pathlib import Path

    from transformers import AutoModelForCausalLM, GPTNeoXConfig, PreTrainedTokenizerFast

    place = tmp_path_factory.mktemp("series")
    files = sorted(Path(sysconfig.get_path("stdlib"), "asyncio").glob("*.py"))
    text = torch.tensor(list(b"\xff".join(path.read_bytes() for path in files)))
    (place / "tokenizer.json").write_text(json.dumps(_of_bytes()))
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(place / "tokenizer.json"), eos_token=END)
    for width in (32, 64):
        torch.manual_seed(0)
        sizes = {"hidden_size": width, "intermediate_size": 4 * width, "num_hidden_layers": 2}
        model = AutoModelForCausalLM.from_config(
            GPTNeoXConfig(**sizes, num_attention_heads=4, vocab_size=256, max_position_embeddings=256)
        )
        optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
        for step in range(1, STEPS[-1] + 1):
            starts = torch.randint(0, len(text) - LENGTH, (BATCH,))
            tokens = torch.stack([text[start : start + LENGTH] for start in starts])
            model(tokens, labels=tokens).loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            if step in STEPS:
                model.save_pretrained(place / f"neox{width}" / f"step{step}")
                tokenizer.save_pretrained(place / f"neox{width}" / f"step{step}")
    return place


def run(module, *arguments):
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments], capture_output=True, text=True, cwd=REPOSITORY, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@pytest.mark.slow
def test_from_folders_to_a_law_and_figures(series, tmp_path):
    stdlib = sysconfig.get_path("stdlib")
    sizes = (
        "data.sequence_length=128",
        "data.batch_tokens=2048",
        "data.eval_windows=64",
        "data.validation_documents=30",
    )
    for width in (32, 64):
        run(
            "scaling.pretrained",
            "study=mine",
            f"pretrained.path=[{series}/neox{width}/step*]",
            f"pretrained.name=neox{width}",
            f"pretrained.tokens_per_step={BATCH * LENGTH}",
            "data=text",
            f"data.corpus.paths=[{stdlib}/email,{stdlib}/json,{stdlib}/logging,{stdlib}/unittest,{stdlib}/http]",
            *sizes,
            "ptq.formats=[int3,int4,int5]",
            *(
                f"runtime.out={tmp_path}/outputs",
                f"runtime.cache={tmp_path}/cache",
                "runtime.threads=1",
                "tracking=off",
            ),
        )
    results = tmp_path / "results" / "mine"
    run("scaling.sweep", "collect", "mine", f"runtime.out={tmp_path}/outputs", "--out", str(results / "runs.csv"))
    table = pd.read_csv(results / "runs.csv")
    assert len(table) == 2 * 6 * 4 and set(table.cluster) == {"neox32", "neox64"}
    base = table[table.ptq.isna()].sort_values(["N", "D"])
    assert (base.groupby("N")["loss"].diff().dropna() < 0.05).all()
    said = run("analysis", "figures", "mine", "--results", str(results.parent))
    fits = json.loads((results / "fits.json").read_text())
    assert "kumar_ptq" in fits["fits"], said
    assert fits["fits"]["kumar_ptq"]["rows"] >= 24
    drawn = {path.stem for path in (results / "figures").glob("*.png")}
    assert {"published_laws", "degradation"} <= drawn
    one = table[table.cluster == "neox64"]
    one.to_csv(tmp_path / "one.csv", index=False)
    of_one = ("analysis", "fit", "kumar_ptq", str(tmp_path / "one.csv"), "--hold", "gamma_N=0.5")
    said = run(*of_one, "--out", str(tmp_path / "one.json"))
    assert "no intervals: all rows are of one chain" in said, said
