"""The commands that make a table of other runs than our own: `public` downloads one, `simulate` plants laws in it.

Nothing heavier than argparse is imported before a command runs.
"""

import argparse
from pathlib import Path

from analysis.errors import InputError, nearest
from analysis.numbers import whole
from analysis.validation.public_tables import SOURCES


def add_parser(commands: "argparse._SubParsersAction") -> None:
    """The commands `public` and `simulate`."""
    public = commands.add_parser(
        "public",
        help="download a public table of runs",
        description="Download a public table of runs as a tidy table NAME.csv.",
    )
    known = "; ".join(f"{s.name}: {s.rows} runs of {s.repository}, licence: {s.licence}" for s in SOURCES.values())
    public.add_argument("name", metavar="NAME", help=known)
    public.add_argument("--out", metavar="FOLDER", type=Path, default=Path("."), help="default: the current folder")
    public.set_defaults(run=run_public)
    simulate = commands.add_parser(
        "simulate",
        help="write simulated tables of all studies",
        description="Write FOLDER/STUDY/runs.csv of all studies, simulated from known laws and effects.",
    )
    simulate.add_argument("folder", metavar="FOLDER", type=Path)
    simulate.add_argument("--seed", type=whole, default=0, help="of the scatter")
    simulate.set_defaults(run=run_simulate)


def run_public(chosen: argparse.Namespace) -> None:
    """Download the table that the command line asks for.

    Raises:
        InputError: no such table, or what `fetch` and `write` raise.
    """
    from analysis.validation.download import fetch, write

    if chosen.name not in SOURCES:
        raise InputError(f"{chosen.name}: no such table; {nearest(chosen.name, SOURCES)}")
    source = SOURCES[chosen.name]
    rows, sha256 = fetch(source)
    path = chosen.out / f"{source.name}.csv"
    write(path, rows)
    file = "sha256 as expected" if source.sha256 else f"sha256 {sha256} not checked (none is known)"
    values = ", values as expected" if source.values else ""
    print(
        f"{path}: {len(rows)} rows from {source.repository} {source.path} at commit {source.commit}, "
        f"licence: {source.licence}; {file}{values}"
    )


def run_simulate(chosen: argparse.Namespace) -> None:
    """Write the simulated tables."""
    from analysis.validation.simulated_studies import write

    write(chosen.folder, seed=chosen.seed)
    print(f"simulated tables: {chosen.folder}")
