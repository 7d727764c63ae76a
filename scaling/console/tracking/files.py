"""The files that W&B writes offline, as far as something has to be known of them.

One is a log of records in the framing of LevelDB: blocks of 32 KiB, in them pieces with a head of 7 bytes (checksum,
length, kind), and the rest of a block that has no room for a head is zeros. W&B puts 7 bytes of its own in front.
"""

import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BLOCK, HEAD = 32768, 7
WHOLE, FIRST, MIDDLE, LAST = 1, 2, 3, 4


def records(path: Path) -> Iterator[bytes]:
    """The records of a file, each a message of `wandb.proto`, up to where it was cut off or is damaged."""
    data, at, record = path.read_bytes(), HEAD, b""
    while at + HEAD <= len(data):
        if BLOCK - at % BLOCK < HEAD:
            at += BLOCK - at % BLOCK
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + HEAD])
        piece, at = data[at + HEAD : at + HEAD + length], at + HEAD + length
        if kind not in (WHOLE, FIRST, MIDDLE, LAST) or len(piece) < length:
            return
        record = piece if kind in (WHOLE, FIRST) else record + piece
        if kind in (WHOLE, LAST):
            yield record


def last_step(folder: Path, run_id: str) -> int:
    """The last step of a run that its files in W&B's folder have; -1 where they have none.

    It is that of the latest file with any: one that goes on begins behind the others, and one that began anew has all.
    """
    files = folder.glob(f"*run-*/run-{run_id}.wandb")
    for path in sorted(files, key=lambda path: path.parent.name.removeprefix("offline-"), reverse=True):
        steps = [message.history.step.num for message in _messages(path) if message.HasField("history")]
        if steps:
            return max(steps)
    return -1


def exit_code(path: Path) -> int | None:
    """That of the run whose file it is; None where it has not ended."""
    codes = [message.exit.exit_code for message in _messages(path) if message.HasField("exit")]
    return codes[-1] if codes else None


def await_exit(path: Path, patience: float = 5.0) -> bool:
    """Wait until a file says how its run ended, at most `patience` seconds; whether it does.

    W&B's service writes behind `finish`, which may return before anything but the head of the file is on disk.
    """
    until, size = time.monotonic() + patience, -1
    while True:
        now = path.stat().st_size if path.exists() else -1
        if now != size and exit_code(path) is not None:
            return True
        if time.monotonic() > until:
            return False
        size = now
        time.sleep(0.005)


def _messages(path: Path) -> Iterator[Any]:
    from google.protobuf.message import DecodeError
    from wandb.proto.wandb_internal_pb2 import Record

    for record in records(path):
        try:
            yield Record.FromString(record)
        except DecodeError:
            return
