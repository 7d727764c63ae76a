"""The weights of one model on disk, and what training goes on from."""

import dataclasses
import struct
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from scaling.errors import InputError
from scaling.records.files import SCHEMA, replacing

PREFIXES = ("w", "m1", "m2", "mean")
"""Of the tensors in a checkpoint: weights, first and second moments, mean of the weights."""


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """Weights, moments and mean of the weights (where there is one) of one model, each name -> (out, in), and where it
    stood."""

    weights: dict[str, torch.Tensor]
    first: dict[str, torch.Tensor]
    second: dict[str, torch.Tensor]
    step: int
    seconds: float
    skipped: int
    skipped_in_a_row: int = 0
    mean: dict[str, torch.Tensor] = dataclasses.field(default_factory=dict)

    def save(self, path: Path, allowed: Callable[[], None] | None = None) -> None:
        """Write weights, what else is given and position, with a checksum that tells a damaged file. `allowed` as for
        `scaling.records.files.replacing`."""
        groups = (self.weights, self.first, self.second, self.mean)
        tensors = {
            f"{prefix}.{name}": tensor.detach().cpu().contiguous()
            for prefix, group in zip(PREFIXES, groups, strict=True)
            for name, tensor in group.items()
        }
        metadata = {
            "schema": str(SCHEMA),
            "step": str(self.step),
            "seconds": repr(self.seconds),
            "skipped": str(self.skipped),
            "skipped_in_a_row": str(self.skipped_in_a_row),
            "crc32": str(_checksum(tensors)),
        }
        with replacing(path, allowed) as temporary:
            save_file(tensors, temporary, metadata=metadata)

    @classmethod
    def load(cls, path: Path) -> "Checkpoint":
        """Read what `save` wrote.

        Raises:
            InputError: missing, truncated or damaged; the line says which file and what to do.
        """
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dict
            damaged = int(metadata["crc32"]) != _checksum(tensors)
        except (SafetensorError, OSError, KeyError, ValueError, struct.error):
            damaged = True
        if damaged:
            raise InputError(f"{path}: missing, truncated or damaged; delete the file to train the run from its start")
        groups: dict[str, dict[str, torch.Tensor]] = {prefix: {} for prefix in PREFIXES}
        for key, tensor in tensors.items():
            prefix, _, name = key.partition(".")
            groups[prefix][name] = tensor
        return cls(
            weights=groups["w"],
            first=groups["m1"],
            second=groups["m2"],
            step=int(metadata["step"]),
            seconds=float(metadata["seconds"]),
            skipped=int(metadata["skipped"]),
            skipped_in_a_row=int(metadata.get("skipped_in_a_row", 0)),  # not in older files
            mean=groups["mean"],
        )


def _checksum(tensors: Mapping[str, torch.Tensor]) -> int:
    value = 0
    for key in sorted(tensors):
        value = zlib.crc32(tensors[key].numpy(), zlib.crc32(key.encode(), value))
    return value
