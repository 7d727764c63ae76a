"""How many bytes a served model takes: its matrices in their formats, scales included. Not of its files, nor of
training."""

from scaling.config.model import is_block_weight, parts_of
from scaling.config.run import Run
from scaling.quantization.spec import QuantSpec

PLAIN_BYTES = 2  # what is not quantized is kept in bf16


def matrix_bytes(spec: QuantSpec, rows: int, columns: int, parts: int) -> float:
    """Of `parts` matrices that have `rows` rows together."""
    if not spec.format.quantizes:
        return rows * columns * PLAIN_BYTES
    groups = rows * -(-columns // spec.block) if spec.block else parts if spec.granularity == "tensor" else rows
    a_group, a_tensor = spec.scale_bits
    return (rows * columns * spec.format.bits + groups * a_group + parts * a_tensor) / 8


def model_bytes(run: Run, vocab_size: int, spec: QuantSpec) -> int:
    """Bytes of a model whose block weights are stored as `spec` says, scales and 16-bit embeddings included.

    An embedding or a head that was trained in a format is stored in it; a tied one in the wider of the two.
    """
    p = run.precision
    shared = ("embedding", "head") if run.model.tied_head else ("embedding",)
    tables = {"embedding": max((p.spec(part) for part in shared), key=lambda s: s.format.bits), "head": p.spec("head")}
    total = 0.0
    for name, (rows, columns) in run.model.shapes(vocab_size).items():
        if is_block_weight(name):
            total += matrix_bytes(spec, rows, columns, parts_of(name))
        else:
            total += matrix_bytes(tables[name], rows, columns, 1)
    return round(total)


def short_blocks(run: Run, spec: QuantSpec) -> str:
    """Kinds of block matrices, comma-separated, whose rows end in a block that is filled up with zeros."""
    if not spec.block:
        return ""
    widths = {
        name.rpartition(".")[2]: columns for name, (_, columns) in run.model.shapes(1).items() if is_block_weight(name)
    }
    return ",".join(kind for kind, columns in widths.items() if columns % spec.block)
