"""The weights of one model on disk, and what training goes on from."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import torch

from scaling.errors import InputError
from scaling.records import tensor_files
from scaling.records.files import SCHEMA

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
        """Write weights, what else is given and position, with a checksum over all of it and over the file's place.
        `allowed` as for `scaling.records.files.replacing`."""
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
        }
        tensor_files.save(path, tensors, metadata, allowed)

    @classmethod
    def load(cls, path: Path) -> "Checkpoint":
        """Read what `save` wrote.

        Raises:
            InputError: missing, truncated, damaged or of another run; the line says which file and what to do.
        """
        folder = path.parent.parent if path.parent.name == "snapshots" else path.parent
        finished = (folder / "result.json").exists()  # then nothing is trained, whatever else is missing
        what = folder if finished or folder != path.parent else "the file"
        what_to_do = f"delete {what} to train the run from its start"
        tensors, metadata = tensor_files.load(path, what_to_do)
        groups: dict[str, dict[str, torch.Tensor]] = {prefix: {} for prefix in PREFIXES}
        try:
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
        except (KeyError, ValueError):
            raise InputError(f"{path}: not a checkpoint; {what_to_do}") from None
