"""Files of tensors with a checksum over all that they say, which binds them to their place in a run's folder as well.

The checksum is of names, types, shapes and bytes of the tensors, of the other metadata, and of the place
(`RUN_ID/checkpoint.safetensors`), so that neither another run's file nor another file of the run passes for it.
"""

import json
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from scaling.errors import InputError
from scaling.records.files import replacing

KEY = "checksum"


def save(
    path: Path,
    tensors: Mapping[str, torch.Tensor],
    metadata: Mapping[str, str] | None = None,
    allowed: Callable[[], None] | None = None,
) -> None:
    """Write tensors on the CPU, whole or not at all; `allowed` as for `replacing`."""
    stated = dict(metadata or {})
    with replacing(path, allowed) as temporary:
        try:
            save_file(dict(tensors), temporary, metadata={**stated, KEY: _checksum(path, tensors, stated)})
        except SafetensorError as fault:
            raise OSError(str(fault)) from None


def load(path: Path, what_to_do: str) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Tensors and metadata of a file. Of earlier versions, checkpoints have another checksum and other files have none.

    Raises:
        InputError: missing, truncated, damaged or of another place; the line ends with what to do.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dict
    except (SafetensorError, OSError, ValueError):
        raise InputError(f"{path}: missing, truncated or damaged; {what_to_do}") from None
    if KEY in metadata:
        intact = metadata.pop(KEY) == _checksum(path, tensors, metadata)
    else:
        intact = not metadata or metadata.get("crc32") == _crc32_of_bytes(tensors)
    if not intact:
        raise InputError(f"{path}: truncated or damaged, or the file of another run; {what_to_do}")
    return tensors, metadata


def _checksum(path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> str:
    inside = 3 if path.parent.name == "snapshots" else 2
    value = zlib.crc32(json.dumps([path.absolute().parts[-inside:], sorted(metadata.items())]).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        head = json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode()
        value = zlib.crc32(tensor.numpy(), zlib.crc32(head, value))
    return f"{value:08x}"


def _crc32_of_bytes(tensors: Mapping[str, torch.Tensor]) -> str:
    """The checksum of checkpoints of earlier versions."""
    value = 0
    for name in sorted(tensors):
        value = zlib.crc32(tensors[name].numpy(), zlib.crc32(name.encode(), value))
    return str(value)
