"""The standard streams of a command: what it says may be lost, and never ends it.

A study trains for days. Where its log goes may be full, gone with a terminal or closed from the start; none of this is
a reason to stop.
"""

import contextlib
import errno
import io
import logging
import os
import sys


class _Heedless(io.FileIO):
    """A file descriptor that takes whatever it is given. What cannot be written is lost, and `fault` says why."""

    fault: OSError | None = None

    def write(self, data) -> int:
        left = memoryview(data).cast("B")
        size = len(left)
        while len(left):
            try:
                left = left[super().write(left) or 0 :]  # None: a pipe that does not block is full
            except OSError as fault:
                self.fault = self.fault or fault
                break
        return size


def secure() -> None:
    """Let stdout and stderr of this process take whatever is printed, from now on to its end, and loggers that cannot
    write do so in silence (W&B's has a file of its own). What has taken the place of the interpreter's own streams is
    left alone."""
    logging.raiseExceptions = False
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # Closed: the next file that is opened would have this number, and get what is meant for the stream.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    for name, number in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        if stream is not getattr(sys, f"__{name}__"):
            continue
        with contextlib.suppress(AttributeError, OSError, ValueError):
            stream.flush()
        raw, encoding = _Heedless(number, "w", closefd=False), getattr(stream, "encoding", "utf-8")
        setattr(sys, name, io.TextIOWrapper(raw, encoding, errors="backslashreplace", write_through=True))


def lost_output() -> OSError | None:
    """Why not all that was printed on stdout has arrived; None where it has, or where its reader wanted no more."""
    fault = getattr(getattr(sys.stdout, "buffer", None), "fault", None)
    return None if fault is None or fault.errno == errno.EPIPE else fault
