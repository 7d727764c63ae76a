"""What a command prints may have nowhere to go: a stream that is closed, a full disk, a reader that has read enough.

The command does its work all the same. What was lost on stdout makes its exit status 1, with one line on stderr, except
behind a reader that left (`| head`), who wanted no more. What was lost on stderr is progress and warnings, and nobody
is there to read of it.
"""

import errno
import io
import os
import sys
from collections.abc import Callable


class Printed(io.TextIOBase):
    """A standard stream that takes everything: `fault` says why some of it was lost, None where nothing was."""

    def __init__(self, stream: io.TextIOBase | None):
        self.stream = stream
        self.fault: OSError | None = None

    def write(self, text: str) -> int:
        return self._tried(lambda: self.stream.write(text), len(text))

    def flush(self) -> None:
        if self.stream is not None:
            self._tried(self.stream.flush, None)

    def isatty(self) -> bool:
        return self.stream is not None and self.stream.isatty()

    def fileno(self) -> int:
        if self.stream is None:
            raise io.UnsupportedOperation("the stream is closed")
        return self.stream.fileno()

    @property
    def encoding(self) -> str:
        return "utf-8" if self.stream is None else self.stream.encoding

    def _tried(self, write: Callable[[], object], done: object):
        if self.fault is None:
            try:
                if self.stream is None:
                    raise OSError(errno.EBADF, "it is closed")
                write()
            except OSError as fault:
                self.fault = fault
                if self.stream is not None:
                    # What waits in the stream goes nowhere, so that Python does not stumble over it at its end.
                    os.dup2(os.open(os.devnull, os.O_WRONLY), self.stream.fileno())
        return done


def run(main: Callable[[], int], prog: str) -> int:
    """What `main` returns or exits with, and 1 where that is 0 but something that it printed was lost."""
    for descriptor in (0, 1, 2):
        _occupy(descriptor)
    out, err = sys.stdout, sys.stderr = Printed(sys.stdout), Printed(sys.stderr)
    try:
        status = main()
    except SystemExit as end:
        status = end.code or 0
    out.flush()
    if out.fault is None or isinstance(out.fault, BrokenPipeError):
        return status
    print(f"{prog}: stdout cannot be written to ({out.fault.strerror}); what was printed is lost", file=err)
    return status or 1


def _occupy(descriptor: int) -> None:
    """Nothing that is opened later may stand in for a standard stream that is closed: what others print would go into
    it."""
    try:
        os.fstat(descriptor)
    except OSError:
        os.open(os.devnull, os.O_RDWR)  # the lowest one that is free
