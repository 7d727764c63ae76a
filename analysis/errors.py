"""The one exception that users see as a line instead of a traceback."""


class InputError(ValueError):
    """Bad input. Its message is one line that names the value and what would be accepted.

    Everything else that is raised is a fault of this program and keeps its traceback. `detail`: what a reader of the
    report does not need; `brief` is the message without it.
    """

    def __init__(self, message: str, *, detail: str = ""):
        # Values that are named may hold line breaks, or what a terminal takes for a command.
        message, whole = (
            "".join(c if c.isprintable() else repr(c)[1:-1] for c in line)
            for line in (message, f"{message}; {detail}" if detail else message)
        )
        super().__init__(whole)
        self.brief = message
