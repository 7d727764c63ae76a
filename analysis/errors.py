"""The one exception that users see as a line instead of a traceback."""


class InputError(ValueError):
    """Bad input. Its message is one line that names the value and what would be accepted.

    Everything else that is raised is a fault of this program and keeps its traceback.
    """
