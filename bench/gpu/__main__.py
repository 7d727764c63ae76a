"""The command `python -m bench.gpu`, which bench/gpu.sh runs: see there and docs/gpu.md."""

import argparse
import logging
import lzma
import os
import shutil
import sys
import tarfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

STATE = Path("outputs/gpu")
TABLES = Path("results/gpu")
SECTIONS = ("tests", "throughput", "study")


def _arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m bench.gpu", description=__import__("bench.gpu").gpu.__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("pack", help="write what has to travel to a machine without network")
    for name in SECTIONS:
        section = commands.add_parser(name, help=f"section {name}: measure what is not measured yet")
        section.add_argument("--seconds", type=float, required=True, help="how long it may take")
        section.add_argument("--out", type=Path, default=STATE, metavar="DIR", help=f"what was measured; {STATE}")
        section.add_argument("--outgoing", type=Path, metavar="DIR", help="for the archive, written after every cell")
        section.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
        section.add_argument("--tiny", action="store_true", help="a small form, to try the command where no card is")
    bring = commands.add_parser("bring", help="take over an archive: tables go to results/, runs to outputs/gpu")
    bring.add_argument("archive", type=Path)
    compare = commands.add_parser("compare", help="do the CPU's and the GPU's runs of `machines` agree?")
    compare.add_argument("--cpu", type=Path, default=Path("results/machines/runs.csv"))
    compare.add_argument("--gpu", type=Path, default=TABLES / "machines.csv")
    return parser.parse_args(argv)


def main(argv: list[str]) -> int:
    """Exit status: 0, 1 where something failed, 2 for bad input, 3 where time ran out before the end."""
    options = _arguments(argv)
    began = time.monotonic()
    os.environ.setdefault("KINETO_LOG_LEVEL", "9")
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")

    def say(line: str) -> None:
        print(f"[{time.monotonic() - began:4.0f} s] {line}", file=sys.stderr, flush=True)

    from scaling.errors import InputError

    try:
        if options.command == "pack":
            from bench.gpu.pack import FOLDER, pack

            pack(FOLDER, say)
            return 0
        if options.command == "bring":
            _bring(options.archive, say)
            return 0
        if options.command == "compare":
            from bench.gpu.machines import compare

            print(compare(options.cpu, options.gpu))
            return 0
        return _section(options, began, say)
    except (InputError, OSError, tarfile.TarError, EOFError, lzma.LZMAError) as fault:
        print(f"python -m bench.gpu: {fault}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("python -m bench.gpu: interrupted; what was measured is kept", file=sys.stderr)
        return 130


def _section(options: argparse.Namespace, began: float, say: Callable[[str], None]) -> int:
    from bench.gpu.results import Results
    from bench.report import Machine
    from scaling.config.from_dict import plain
    from scaling.config.runtime import resolve_device

    resolve_device(options.device)
    logging.disable(logging.WARNING)
    warnings.filterwarnings("ignore", category=UserWarning)
    results = Results(options.out, options.outgoing)
    results.describe(plain(Machine.here(options.device, "bfloat16")))
    try:
        if options.command == "tests":
            from bench.gpu import suite

            return suite.run(results, began + options.seconds, options.device, tiny=options.tiny)
        from bench.gpu import cells, study

        section = cells if options.command == "throughput" else study
        return section.run(results, began + options.seconds, options.device, tiny=options.tiny, say=say)
    finally:
        results.save()  # an interrupted stack may have runs that were at their end


def _bring(archive: Path, say: Callable[[str], None]) -> None:
    """Unpack, copy the lines of all sections to results/gpu, and collect the tables of the studies."""
    from bench.gpu.results import Results
    from scaling.records.table import collect

    if not archive.is_file():
        raise FileNotFoundError(f"{archive}: no such archive")
    Results(STATE).restore(archive)
    TABLES.mkdir(parents=True, exist_ok=True)
    for path in [*STATE.glob("*.jsonl"), *STATE.glob("*.json")]:
        shutil.copyfile(path, TABLES / path.name)
        say(f"{TABLES / path.name}")
    for name, out in (("machines", TABLES / "machines.csv"), ("gpu_overtraining", None)):
        folder = STATE / "runs" / name
        if folder.is_dir():
            out = out or Path("results") / name / "runs.csv"
            say(f"{out}: {collect(folder, out, [])} rows")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
