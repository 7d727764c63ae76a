"""The command `python -m scaling.export`: writes a model that was trained here in the layout of Llama, as transformers
and what builds on it read it. Such a folder can be measured like any other checkpoint (`scaling.pretrained`).
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scaling.console.cli import guarded
from scaling.errors import InputError

if TYPE_CHECKING:
    import torch

    from scaling.config.run import Run
    from scaling.records.loaded_run import LoadedRun

END = "<|endoftext|>"
"""Name of the token between documents."""


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m scaling.export",
        description="Write the model of a finished run as a folder that transformers loads (LlamaForCausalLM): "
        "weights in safetensors, config, tokenizer, and what its training says.",
    )
    parser.add_argument("run", type=Path, help="folder of the run, outputs/STUDY/RUN_ID")
    parser.add_argument("--out", type=Path, required=True, help="folder to write, which must not be there yet")
    parser.add_argument("--cache", type=Path, default=Path("cache"), help="folder of corpora, for bpe (cache)")
    guarded(lambda: _run(parser.parse_args(arguments)), "scaling.export")


def _run(given: argparse.Namespace) -> None:
    from scaling.records.loaded_run import load_run

    loaded = load_run(given.run)
    export(loaded, given.out, given.cache)
    print(f"{given.out}: {loaded.result['N']:,} parameters without embeddings, {loaded.config.D:,} tokens")


def export(loaded: "LoadedRun", out: Path, cache: Path) -> None:
    """Write a finished run's model to the new folder `out`.

    Raises:
        InputError: Llama has no place for what the model has, or the folder cannot be written. Nothing was written.
    """
    from scaling.data.new_folder import new_folder

    run = loaded.config
    _check(run)
    vocabulary = loaded.result["vocab_size"]
    texts = {"config.json": _config(run, vocabulary), "training.json": _training(run), **_tokenizer(loaded, cache)}
    if out.exists():
        raise InputError(f"--out {out}: is there already; name a new folder")
    with new_folder(out, "name another folder (--out)") as temporary:
        _save(_weights(loaded), temporary / "model.safetensors")
        for name, values in texts.items():
            (temporary / name).write_text(json.dumps(values, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _check(run: "Run") -> None:
    if run.model.extra_norm:
        raise InputError(
            f"{run.run_id}: model.extra_norm=true: Llama has no norm in front of these matrices; train with false"
        )
    if run.precision != run.precision.unquantized():
        raise InputError(f"{run.run_id}: was trained with quantized parts, which Llama's layout cannot say")


def _save(weights: "dict[str, torch.Tensor]", path: Path) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        save_file(weights, path, metadata={"format": "pt"})
    except SafetensorError as fault:
        raise OSError(str(fault)) from None


def _weights(loaded: "LoadedRun") -> "dict[str, torch.Tensor]":
    """The matrices under Llama's names, and its norms, whose gains are ones here."""
    import torch

    from scaling.records.checkpoint import Checkpoint

    model, ours = loaded.config.model, Checkpoint.load(loaded.folder.checkpoint_path).weights
    ones = torch.ones(model.d_model)
    theirs = {"model.embed_tokens.weight": ours["embedding"], "model.norm.weight": ones.clone()}
    if not model.tied_head:
        theirs["lm_head.weight"] = ours["head"]
    for i in range(model.n_layers):
        place, layer = f"model.layers.{i}.", {k: ours[f"layers.{i}.{k}"] for k in ("qkv", "out", "gate_up", "down")}
        query, key, value = layer["qkv"].chunk(3)
        gate, up = layer["gate_up"].chunk(2)
        parts = {"q_proj": query, "k_proj": key, "v_proj": value, "o_proj": layer["out"]}
        theirs |= {f"{place}self_attn.{name}.weight": w for name, w in parts.items()}
        theirs |= {f"{place}mlp.{n}.weight": w for n, w in (("gate_proj", gate), ("up_proj", up))}
        theirs[f"{place}mlp.down_proj.weight"] = layer["down"]
        theirs |= {f"{place}{norm}.weight": ones.clone() for norm in ("input_layernorm", "post_attention_layernorm")}
    return {name: w.float().contiguous().clone() for name, w in theirs.items()}


def _config(run: "Run", vocabulary: int) -> dict[str, Any]:
    from scaling.model.transformer import EPSILON

    model = run.model
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": vocabulary,
        "hidden_size": model.d_model,
        "intermediate_size": model.width_ff,
        "num_hidden_layers": model.n_layers,
        "num_attention_heads": model.n_heads,
        "num_key_value_heads": model.n_heads,
        "head_dim": model.head_dim,
        "hidden_act": "silu",
        "max_position_embeddings": run.data.sequence_length,
        "rms_norm_eps": EPSILON,
        "rope_theta": model.rope_base,  # where version 4 of transformers reads it, and where 5 does
        "rope_parameters": {"rope_type": "default", "rope_theta": model.rope_base},
        "tie_word_embeddings": model.tied_head,
        "attention_bias": False,
        "mlp_bias": False,
        "bos_token_id": None,
        "eos_token_id": vocabulary - 1,
        "dtype": "float32",
    }


def _training(run: "Run") -> dict[str, Any]:
    """What `scaling.pretrained` takes for the columns that only training can fill."""
    from scaling.config.from_dict import plain

    return {
        "run_id": run.run_id,
        "tokens": run.D,
        "tokens_per_step": run.data.batch_tokens,
        "schedule": plain(run.schedule),
        "total_tokens": run.D,
    }


def _tokenizer(loaded: "LoadedRun", cache: Path) -> dict[str, Any]:
    """Files of a tokenizer that gives the same tokens; none for synthetic text, whose tokens are all there is."""
    from scaling.config.data import BpeTokenizer, BytesTokenizer, HfTokenizer, SyntheticCorpus

    data, result = loaded.config.data, loaded.result
    if isinstance(data.corpus, SyntheticCorpus):
        return {}
    if isinstance(data.tokenizer, HfTokenizer):
        raise InputError(
            f"{loaded.config.run_id}: its tokenizer is that of {data.tokenizer.name}, which is not copied here; "
            "export runs on bytes, bpe or synthetic text"
        )
    if isinstance(data.tokenizer, BytesTokenizer):
        content = _of_bytes()
    else:
        assert isinstance(data.tokenizer, BpeTokenizer)
        path = cache / result["corpus"] / "tokenizer.json"
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            raise InputError(f"{path}: missing or damaged; name the folder of corpora with --cache") from None
    content["added_tokens"] = [
        {
            "id": result["vocab_size"] - 1,
            "content": END,
            **dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False),
            "special": True,
        }
    ]
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": END, "clean_up_tokenization_spaces": False}
    return {"tokenizer.json": content, "tokenizer_config.json": settings}


def _of_bytes() -> dict[str, Any]:
    """A byte-level BPE without merges: the id of a byte is its value. 0xFF, which UTF-8 never has, is left out."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in plain]
    shown = {byte: chr(byte) for byte in plain} | {byte: chr(0x100 + i) for i, byte in enumerate(others)}
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "normalizer": None,
        "pre_tokenizer": level,
        "post_processor": None,
        "decoder": level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "vocab": {shown[byte]: byte for byte in range(0xFF)},
            "merges": [],
        },
    }


if __name__ == "__main__":
    main()
