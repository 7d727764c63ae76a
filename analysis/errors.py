"""The one exception that users see as a line instead of a traceback."""


class InputError(ValueError):
    """Bad input. Its message is one line that names the value and what would be accepted.

    Everything else that is raised is a fault of this program and keeps its traceback.
    """

    def __init__(self, line: str):
        # Values that are named may hold line breaks, or what a terminal takes for a command.
        super().__init__("".join(c if c.isprintable() else repr(c)[1:-1] for c in line))
