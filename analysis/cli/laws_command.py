"""The command `laws`: what can be fitted. `python -m analysis laws --help`.

Nothing heavier than argparse is imported before a command runs.
"""

import argparse


def add_parser(commands: "argparse._SubParsersAction") -> None:
    """The command `laws`."""
    parser = commands.add_parser(
        "laws", help="list the laws", description="List the laws, their parameters and sources."
    )
    parser.set_defaults(run=run)


def run(_: argparse.Namespace) -> None:
    """Print the laws."""
    from analysis.laws.registry import LAWS

    for law in LAWS.values():
        print(f"{law.name}  ({law.response})\n    {law.equation}\n    {law.source}")
        for p in law.ordered:
            known = "" if p.published is None else f", published {p.published:.5g}"
            print(f"    {p.symbol:<10} {p.unit}{known}")
