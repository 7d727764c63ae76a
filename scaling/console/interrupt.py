"""Ctrl-C and a polite kill while a stack trains."""

import signal
import threading


class Interrupt:
    """Ctrl-C and a polite kill (SIGTERM, as schedulers send it) wait for the end of the step; a second one does not.
    Use as a context.

    `asked` says whether there was one.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self):
        self.asked = False

    def _handle(self, number, frame) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True

    def __enter__(self) -> "Interrupt":
        # Handlers can be set in the main thread only; elsewhere the caller's stay.
        self.before = {}
        if threading.current_thread() is threading.main_thread():
            self.before = {number: signal.signal(number, self._handle) for number in self.SIGNALS}
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)
