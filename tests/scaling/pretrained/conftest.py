"""Tiny models of families that are built differently, each made once."""

import pytest
import torch

from scaling.config.compose import composed_as
from scaling.config.from_dict import build
from scaling.config.pretrained.measured_run import MeasureJob

SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 16}
GQA = {**SIZES, "intermediate_size": 64, "num_key_value_heads": 2}


def _config(family: str):
    import transformers as t

    small = {"max_position_embeddings": 128}
    return {
        "llama": lambda: t.LlamaConfig(**GQA, **small),
        "neox": lambda: t.GPTNeoXConfig(**SIZES, intermediate_size=128, **small),
        "olmo2": lambda: t.Olmo2Config(**GQA, **small, pad_token_id=0),
        "gpt2": lambda: t.GPT2Config(n_embd=32, n_layer=2, n_head=4, vocab_size=16, n_positions=128),
        "gemma3": lambda: t.Gemma3TextConfig(**GQA, **small, head_dim=8, sliding_window=8, pad_token_id=0),
        "qwen3": lambda: t.Qwen3Config(**GQA, **small, head_dim=8, tie_word_embeddings=True),
        "phi3": lambda: t.Phi3Config(**GQA, **small, pad_token_id=0),
        "moe": lambda: t.Qwen3MoeConfig(
            **GQA, **small, head_dim=8, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=32
        ),
    }[family]()


def tiny(family: str):
    """A model with random weights that are large enough to matter."""
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(_config(family)).eval().requires_grad_(False)
    for name, parameter in model.named_parameters():
        if parameter.dim() > 1:
            parameter.normal_(0, 0.15)
        elif "bias" in name:
            parameter.normal_(0, 0.05)
    return model


@pytest.fixture(scope="session")
def models():
    """models("llama") -> a tiny model, the same to all tests: they leave it as it is."""
    made = {}

    def get(family: str):
        if family not in made:
            made[family] = tiny(family)
        return made[family]

    return get


@pytest.fixture(scope="session")
def saved(tmp_path_factory, models):
    """saved("llama") -> its folder."""
    place = tmp_path_factory.mktemp("checkpoints")

    def get(family: str):
        folder = place / f"{family}-step100"
        if not folder.exists():
            models(family).save_pretrained(folder)
        return folder

    return get


SYNTHETIC = (
    *("data=synthetic", "data.corpus.alphabet=15", "data.corpus.documents=200", "data.corpus.document_tokens=80"),
    *("data.sequence_length=32", "data.batch_tokens=64", "data.eval_windows=8", "data.validation_documents=16"),
    *("tracking=off", "runtime.threads=1", "runtime.device=cpu", "study=tiny"),
    *("ptq.formats=[int4]", "ptq.calibration_tokens=512"),
)


@pytest.fixture
def make_job(tmp_path, corpus_cache):
    """make_job("pretrained.path=...", ...) -> MeasureJob, with the project's own configs and synthetic text."""

    def make(*overrides):
        place = (f"runtime.out={tmp_path / 'outputs'}", f"runtime.cache={corpus_cache}")
        return build(MeasureJob, composed_as("pretrained", [*SYNTHETIC, *place, *overrides]))

    return make
