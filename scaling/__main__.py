"""`python -m scaling`: lists the commands."""

from scaling.console.cli import guarded

COMMANDS = {
    "scaling-train": ("scaling.train", "train one run, or with --multirun a study"),
    "scaling-sweep": ("scaling.sweep", "a study before, during and after: plan, status, collect"),
    "scaling-ptq": ("scaling.ptq", "quantize the models of finished runs again"),
    "scaling-pretrained": ("scaling.pretrained", "measure checkpoints that others trained"),
    "scaling-export": ("scaling.export", "write a model that was trained here in the layout of Llama"),
    "scaling-analysis": ("analysis", "fit laws to a table, predict, plan, draw, report"),
}
"""Installed command -> the same as a module, and what it is for."""


def main() -> None:
    """Print a line for each command."""
    guarded(_list, "scaling")


def _list() -> None:
    for name, (module, what) in COMMANDS.items():
        print(f"{name:<19} python -m {module:<18} {what}")


if __name__ == "__main__":
    main()
