"""What can be quantized in a model, found in its module tree, whatever its family calls it.

Matrices of the blocks are the weights of `nn.Linear`, and of the transposed `Conv1D` of GPT-2, apart from the head.
Fused projections (query, key and value in one) are one matrix each, as they are stored. Embeddings are lookup tables,
wherever they are. N counts everything else: matrices, and also norms, biases and what no module of these kinds holds,
such as the experts of a mixture, which are parameters of three dimensions. What share of N is quantized is known by
that, and a model of which too little is gets refused.
"""

import dataclasses
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import torch
from torch import nn

from scaling.errors import InputError


@dataclasses.dataclass(frozen=True)
class Linear:
    """One matrix of the blocks."""

    name: str
    module: nn.Module
    transposed: bool
    """Whether the module holds it as (in, out)."""

    @property
    def weight(self) -> torch.Tensor:
        """(out, in), a view of what the module holds."""
        weight = self.module.weight.detach()
        return weight.T if self.transposed else weight

    def put(self, weight_oi: torch.Tensor) -> None:
        """Take these values in place of its own."""
        self.weight.copy_(weight_oi)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layout:
    """The parts of a model."""

    model: nn.Module
    linears: tuple[Linear, ...]
    """In the order of the module tree."""
    blocks: tuple[nn.Module, ...]
    """One after the other; empty where no list of modules holds all the matrices."""
    head: nn.Module | None
    embedding: nn.Module | None
    """Of the tokens."""
    parameters: dict[str, int]
    """N, N_total, embedding (of any kind), head (0 where it is the embedding's own)."""

    @property
    def share(self) -> float:
        """Of N, that is quantized."""
        return sum(linear.weight.numel() for linear in self.linears) / self.parameters["N"]

    @property
    def shape(self) -> dict[str, int | None]:
        """Width, blocks and heads, as far as its config says."""
        config = text_config(self.model)
        names = {"d_model": "hidden_size", "n_layers": "num_hidden_layers", "n_heads": "num_attention_heads"}
        return {column: getattr(config, name, None) for column, name in names.items()}

    @property
    def matrices(self) -> list[list[Any]]:
        """[name, rows, columns] of each matrix."""
        return [[linear.name, *linear.weight.shape] for linear in self.linears]

    @property
    def tables(self) -> dict[str, list[int] | None]:
        """[rows, columns] of the embedding of tokens, and of the head; None where that is the embedding's own."""
        tied = self.head is not None and self.embedding is not None and self.head.weight is self.embedding.weight
        by_part = {"embedding": self.embedding, "head": None if tied else self.head}
        return {part: None if table is None else list(table.weight.shape) for part, table in by_part.items()}

    @cached_property
    def widest(self) -> int:
        """Most inputs of a matrix."""
        return max(linear.weight.shape[1] for linear in self.linears)

    @property
    def device(self) -> torch.device:
        return self.linears[0].weight.device

    def in_block(self, i: int) -> list[Linear]:
        """The matrices of block i."""
        inside = set(map(id, self.blocks[i].modules()))
        return [linear for linear in self.linears if id(linear.module) in inside]


def text_config(model: nn.Module) -> Any:
    """The config of the language model, also where it is a part of another's."""
    return model.config.get_text_config()


def layout_of(model: nn.Module, least_share: float) -> Layout:
    """Take a causal language model of transformers apart.

    Raises:
        InputError: less than `least_share` of N is in matrices that can be quantized.
    """
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    tables = [module for module in model.modules() if isinstance(module, nn.Embedding)]
    tables += [embedding] if embedding is not None and embedding not in tables else []
    counted = {id(parameter): parameter.numel() for parameter in model.parameters()}
    in_tables = {id(parameter) for table in tables for parameter in table.parameters()}
    in_head = set() if head is None else {id(parameter) for parameter in head.parameters()} - in_tables
    sizes = {
        "N_total": sum(counted.values()),
        "embedding": sum(counted.get(key, 0) for key in in_tables),
        "head": sum(counted.get(key, 0) for key in in_head),
    }
    sizes["N"] = sizes["N_total"] - sizes["embedding"] - sizes["head"]
    linears = tuple(_linears(model, in_tables | in_head))
    layout = Layout(
        model=model,
        linears=linears,
        blocks=_blocks(model, linears),
        head=head,
        embedding=embedding,
        parameters=sizes,
    )
    if not linears or layout.share < least_share:
        raise InputError(
            f"{type(model).__name__}: {layout.share if linears else 0:.1%} of N is in matrices that can be quantized "
            f"(nn.Linear, Conv1D); the largest other: {_largest_other(layout)}; a pretrained.least_share below that, "
            f"instead of {least_share}, measures it all the same"
        )
    return layout


def _linears(model: nn.Module, others: set[int]) -> Iterator[Linear]:
    from transformers.pytorch_utils import Conv1D

    seen = set(others)
    for name, module in model.named_modules():
        transposed = isinstance(module, Conv1D)
        if (transposed or isinstance(module, nn.Linear)) and id(module.weight) not in seen:
            seen.add(id(module.weight))
            yield Linear(name, module, transposed)


def _blocks(model: nn.Module, linears: tuple[Linear, ...]) -> tuple[nn.Module, ...]:
    """The shortest list of modules that holds all matrices: its members are what the residual stream passes."""
    wanted = {id(linear.module) for linear in linears}
    lists = [module for module in model.modules() if isinstance(module, nn.ModuleList)]
    whole = [blocks for blocks in lists if wanted <= {id(module) for module in blocks.modules()}]
    return tuple(min(whole, key=len)) if whole else ()


def _largest_other(layout: Layout) -> str:
    quantized = {id(linear.module.weight) for linear in layout.linears}
    tables = [layout.head, *(m for m in layout.model.modules() if isinstance(m, nn.Embedding))]
    apart = quantized | {id(p) for table in tables if table is not None for p in table.parameters()}
    others = [(p.numel(), name, tuple(p.shape)) for name, p in layout.model.named_parameters() if id(p) not in apart]
    if not others:
        return "none"
    _, name, shape = max(others)
    return f"{name} {shape}"
