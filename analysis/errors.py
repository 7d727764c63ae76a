"""The one exception that users see as a line instead of a traceback."""


class InputError(ValueError):
    """Bad input. Its message is one line that names the value and what would be accepted.

    Everything else that is raised is a fault of this program and keeps its traceback. `detail`: what a reader of the
    report does not need; `brief` is the message without it.
    """

    def __init__(self, message: str, *, detail: str = ""):
        super().__init__(f"{message}; {detail}" if detail else message)
        self.brief = message
