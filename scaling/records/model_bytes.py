"""How many bytes a served model takes: its matrices in their formats, scales included. Not of its files, nor of
training."""

from collections.abc import Mapping, Sequence

from scaling.config.model import is_block_weight, parts_of
from scaling.config.run import Run
from scaling.quantization.skip import is_skipped
from scaling.quantization.spec import QuantSpec

PLAIN_BYTES = 2  # what is not quantized is kept in bf16


def matrix_bytes(spec: QuantSpec, rows: int, columns: int, parts: int) -> float:
    """Of `parts` matrices that have `rows` rows together."""
    if not spec.format.quantizes:
        return rows * columns * PLAIN_BYTES
    if spec.block:
        groups = parts * -(-rows // parts // spec.block_rows) * -(-columns // spec.block)
    else:
        groups = parts if spec.granularity == "tensor" else rows
    a_group, a_tensor = spec.scale_bits
    return (rows * columns * spec.format.bits + groups * a_group + parts * a_tensor) / 8


def model_bytes(
    run: Run,
    vocab_size: int,
    spec: QuantSpec,
    *,
    embedding: QuantSpec | None = None,
    head: QuantSpec | None = None,
    skip: Sequence[str] = (),
) -> int:
    """Bytes of a model whose block weights are stored as `spec` says, scales and 16-bit embeddings included.

    An embedding or a head that was trained in a format is stored in it unless another is given; a tied one in the wider
    of the two. Block matrices to `skip` are stored as they were trained.
    """
    tables = {"embedding": embedding or run.precision.spec("embedding"), "head": head or run.precision.spec("head")}
    if run.model.tied_head:
        tables["embedding"] = max(tables.values(), key=lambda s: s.format.bits)
    total = 0.0
    for name, (rows, columns) in run.model.shapes(vocab_size).items():
        if is_block_weight(name):
            own = run.precision.at(name).spec("weights") if is_skipped(name, skip) else spec
            total += matrix_bytes(own, rows, columns, parts_of(name))
        else:
            total += matrix_bytes(tables[name], rows, columns, 1)
    return round(total)


def short_blocks(columns: Mapping[str, int], spec: QuantSpec, skip: Sequence[str] = ()) -> str:
    """Kinds of block matrices, by the ends of their names, comma-separated, whose rows (`columns` of them, by name) end
    in a block that is filled up with zeros."""
    if not spec.block:
        return ""
    short = (name for name, count in columns.items() if count % spec.block and not is_skipped(name, skip))
    return ",".join(dict.fromkeys(name.rpartition(".")[2] for name in short))
