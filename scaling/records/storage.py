"""How many bytes a model takes: its matrices in their formats, scales included."""

import dataclasses

from scaling.config.model import is_block_weight, parts_of
from scaling.config.precision import Precision
from scaling.config.run import Run
from scaling.quantization.formats import Format
from scaling.quantization.scales import check_rule, stored_bits
from scaling.quantization.spec import block_of

PLAIN_BYTES = 2  # what is not quantized is kept in bf16


@dataclasses.dataclass(frozen=True)
class Storage:
    """How a matrix is stored: format, values that share a scale, rule of the scales."""

    format: Format
    granularity: str
    scale_rule: str

    @classmethod
    def of(cls, fmt: Format, granularity: str, scale_rule: str) -> "Storage":
        """Under settings of training, as they come into effect for the format."""
        return cls(fmt, fmt.granularity(granularity), check_rule(scale_rule, fmt))

    @property
    def block(self) -> int | None:
        return block_of(self.granularity)

    def bytes(self, rows: int, columns: int, parts: int) -> float:
        """Of `parts` matrices that have `rows` rows together."""
        if not self.format.quantizes:
            return rows * columns * PLAIN_BYTES
        groups = rows * -(-columns // self.block) if self.block else {"tensor": parts}.get(self.granularity, rows)
        a_group, a_tensor = stored_bits(self.scale_rule, self.format)
        return (rows * columns * self.format.bits + groups * a_group + parts * a_tensor) / 8


def trained_weights(precision: Precision, fmt: Format) -> Storage:
    """How training stores a matrix of this format."""
    return Storage.of(fmt, precision.granularity_weights, precision.scale_rule_weights)


def model_bytes(run: Run, vocab_size: int, setting: Storage) -> int:
    """Bytes of a model whose block weights are stored as `setting` says, scales and 16-bit embeddings included.

    An embedding or a head that was trained in a format is stored in it; a tied one in the wider of the two.
    """
    p = run.precision
    shared = ("embedding", "head") if run.model.tied_head else ("embedding",)
    tables = {"embedding": max((p.format(part) for part in shared), key=lambda f: f.bits), "head": p.format("head")}
    total = 0.0
    for name, (rows, columns) in run.model.shapes(vocab_size).items():
        if is_block_weight(name):
            total += setting.bytes(rows, columns, parts_of(name))
        else:
            total += trained_weights(p, tables[name]).bytes(rows, columns, 1)
    return round(total)


def short_blocks(run: Run, setting: Storage) -> str:
    """Kinds of block matrices, comma-separated, whose rows end in a block that is filled up with zeros."""
    if not setting.block:
        return ""
    widths = {
        name.rpartition(".")[2]: columns for name, (_, columns) in run.model.shapes(1).items() if is_block_weight(name)
    }
    return ",".join(kind for kind, columns in widths.items() if columns % setting.block)
