"""The command `python -m bench`."""

import argparse
import logging
import os
import shlex
import sys
import tempfile
import time
import warnings
from fnmatch import fnmatch
from pathlib import Path

PARTIAL = Path("outputs/bench")
FULL = Path("results/bench")
DEVICE = "cpu"
"""A GPU has a command of its own, `python -m bench.gpu`."""


def _arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m bench", description=__import__("bench").__doc__.partition("\n\n")[0])
    parser.add_argument("--only", metavar="GLOB", help="groups to measure, such as 'step/24k/*' or 'ptq*'")
    effort = parser.add_mutually_exclusive_group()
    effort.add_argument(
        "--quick", action="store_const", dest="effort", const="quick", help="the smallest model: some minutes"
    )
    effort.add_argument(
        "--all", action="store_const", dest="effort", const="all", help="every precision compiled at every size"
    )
    parser.add_argument("--list", action="store_true", help="name the groups, and measure nothing")
    parser.add_argument(
        "--out", metavar="DIR", type=Path, help=f"where to write; {FULL}, or {PARTIAL} with --only or --quick"
    )
    parser.add_argument("--threads", metavar="N", type=int, default=os.cpu_count() or 1, help="default: all cores")
    parser.set_defaults(effort="normal")
    options = parser.parse_args(argv)
    if options.threads < 1:
        parser.error(f"--threads {options.threads}: must be at least 1")
    options.out = options.out or (PARTIAL if options.only or options.effort == "quick" else FULL)
    return options


def main(argv: list[str]) -> int:
    """Exit status: 0 where every row was measured or skipped for want of a package or a compiler, 1 where one failed,
    2 for bad input."""
    options = _arguments(argv)
    began = time.monotonic()

    # Torch reads these once; its profiler prints otherwise.
    os.environ.setdefault("KINETO_LOG_LEVEL", "9")
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")

    import torch

    from bench import fits, ptq, report, steps, throughput
    from bench.timing import measure
    from bench.training import run_of
    from scaling.errors import InputError
    from scaling.model.allocator import keep_memory

    # Torchao's about kernels for GPUs, torch.compile's about cached functions. Faults are rows of the report.
    logging.disable(logging.WARNING)
    warnings.filterwarnings("ignore", category=UserWarning)
    torch.set_num_threads(options.threads)
    # As training does; the peers profit from it as well.
    keep_memory()

    def say(line: str) -> None:
        print(f"[{time.monotonic() - began:4.0f} s] {line}", file=sys.stderr, flush=True)

    try:
        dtype = run_of(f"runtime.device={DEVICE}").runtime.dtype
        machine = report.Machine.here(DEVICE, dtype)
        with tempfile.TemporaryDirectory() as scratch:
            groups = [
                *throughput.groups(DEVICE, options.effort),
                *steps.groups(DEVICE, options.effort),
                *ptq.groups(DEVICE, options.effort, Path(scratch)),
                *fits.groups(options.effort),
            ]
            chosen = [group for group in groups if fnmatch(group.name, options.only or "*")]
            if options.list:
                print("\n".join(group.name for group in chosen))
                return 0
            if not chosen:
                raise InputError(f"--only {options.only}: none of {', '.join(group.name for group in groups)}")
            options.out.mkdir(parents=True, exist_ok=True)
            say(machine.sentence())
            rows = []
            for group in chosen:
                measured = measure(group, say)
                rows += measured
                print(*report.tables(measured), sep="\n", flush=True)
                # After each group: an interrupt loses only the one at hand.
                command = shlex.join(["python", "-m", "bench", *argv])
                report.write(options.out, machine, command, time.monotonic() - began, rows)
    except (InputError, OSError) as fault:
        print(f"python -m bench: {fault}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("python -m bench: interrupted", file=sys.stderr)
        return 130
    failed = [f"{row.group} {row.variant}" for row in rows if row.failed]
    say(f"wrote {options.out}/bench.json and bench.md")
    if failed:
        print(f"python -m bench: failed: {', '.join(dict.fromkeys(failed))}; see their notes", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
