"""Section `study`: `machines`, then the stacks of `gpu_overtraining` in the order of its grids, a line a stack.

All horizons and seeds of a size are one stack, so that together they cost the steps of the longest. Of a stack only the
runs are trained whose last step can be reached in the time that is left, at the speed of the stack before; what ends
early is whole, and a stack that is killed loses only the runs that were not at their end.
"""

import dataclasses
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from bench.gpu.results import Results
from scaling.config.run import Run
from scaling.records.run_folder import RunFolder
from scaling.sweep import load
from scaling.train import train

SLOW = 3e-3
"""Seconds a step above which the study is made smaller: fixed beforehand (sweeps/gpu_overtraining.yaml)."""
SHORTER = {64_000_000: 32_000_000}
DROPPED = (5_308_416,)
WARM_STEPS = 8
OWN = ("tracking=off", "tracking.val_windows=0", "runtime.checkpoint_seconds=1e9")
TINY = (
    "model=2k",
    "data=text",
    "data.corpus.paths=[README.md]",
    "data.corpus.document=line",
    "data.validation_documents=64",
    "data.eval_windows=64",
    "data.sequence_length=32",
    "data.batch_tokens=128",
    "schedule.warmup_tokens=512",
    "ptq.formats=[int3,int4]",
    "ptq.calibration_tokens=1024",
    "runtime.compile=off",
    "runtime.dtype=float32",
)

Say = Callable[[str], None]


def run(results: Results, end: float, device: str, *, tiny: bool, say: Say) -> int:
    """Train what is not done, until `end` on the monotonic clock.

    Exit status: 0, 1 where a run failed, 3 where time ran out.
    """
    failed, complete = False, True
    for stack in stacks(results, device, tiny=tiny):
        lines = results.lines("study")
        first = next((line["step"] for line in lines if line["study"] == "machines" and line["step"]), None)
        last = next((line["step"] for line in reversed(lines) if line["step"]), first)
        runs = smaller(stack) if first and first > SLOW and stack[0].study != "machines" else list(stack)
        todo = [run for run in runs if RunFolder(run).state() != "done"]
        left = end - time.monotonic()
        chosen = within(todo, left, last or 0.0)
        if len(chosen) < len(todo):
            say(f"{title(todo)}: time is left for {len(chosen)} of {len(todo)} runs ({left:.0f} s)")
            complete = False
        if not chosen or left <= 0:
            continue
        say(title(chosen))
        line = _train(chosen, device, say)
        failed |= bool(line["failed"])
        results.add("study", line)
    return 1 if failed else 0 if complete else 3


def stacks(results: Results, device: str, *, tiny: bool) -> list[list[Run]]:
    """All runs, those that are trained together in one list, in the order in which they are worth most."""
    own = (*OWN, f"runtime.device={device}", f"runtime.out={results.runs}")
    groups = []
    for name in ("machines", "gpu_overtraining"):
        runs = load(name, [*own, *(TINY if tiny else ())]).runs
        if tiny:
            runs = [_tiny(run) for run in runs]
            runs = list({run.run_id: run for run in runs[:2]}.values())
        groups += [list(group) for _, group in groupby(runs, key=lambda run: run.stack_key)]
    return groups


def smaller(stack: Sequence[Run]) -> list[Run]:
    """What a slow machine trains instead."""
    shorter = []
    for run in stack:
        if run.N not in DROPPED:
            tokens = SHORTER.get(run.data.tokens, run.data.tokens)
            shorter.append(dataclasses.replace(run, data=dataclasses.replace(run.data, tokens=tokens)))
    return shorter


def within(runs: Sequence[Run], left: float, step: float) -> list[Run]:
    """Those that can reach their end in the seconds that are left, at so many seconds a step."""
    return [run for run in runs if run.steps * step <= left]


def title(runs: Sequence[Run]) -> str:
    """What a stack is, in a few words."""
    run = max(runs, key=lambda run: run.steps)
    return f"{run.study}: {len(runs)} runs of N = {run.N:,}, {run.steps:,} steps"


def _train(runs: Sequence[Run], device: str, say: Say) -> dict[str, Any]:
    """One stack to its end; where code cannot be compiled, eagerly."""
    began = time.monotonic()
    warm = _warm_up(runs, say) if runs[0].study == "machines" else 0.0
    failed = train(runs)
    if failed and runs[0].runtime.compile == "on":
        say(f"eagerly again: {next(iter(failed.values()))}")
        runs = [dataclasses.replace(run, runtime=dataclasses.replace(run.runtime, compile="off")) for run in runs]
        failed = train([run for run in runs if RunFolder(run).state() != "done"])
    results = [result for run in runs if (result := RunFolder(run).result())]
    steps = max((run.steps for run in runs), default=0)
    trained = sum(result["seconds"] for result in results)
    return {
        "study": runs[0].study,
        "N": runs[0].N,
        "runs": [run.run_id for run in runs],
        "done": len(results),
        "failed": failed,
        "steps": steps,
        "step": (trained - warm) / (steps - WARM_STEPS * bool(warm)) if results else None,
        "trained": round(trained, 1),
        "took": round(time.monotonic() - began, 1),
        "compiled": all(result["compiled"] for result in results),
        "device": results[0]["device"] if results else device,
    }


def _warm_up(runs: Sequence[Run], say: Say) -> float:
    """Seconds of a few steps that need no more compilation than the stack itself will, once caches have its code: so
    the speed of later steps is known without it."""
    seconds = 0.0
    for _ in range(2):
        scratch = Path(tempfile.mkdtemp())
        short = []
        for run in runs:
            tokens = WARM_STEPS * run.data.batch_tokens
            short.append(
                dataclasses.replace(
                    run,
                    data=dataclasses.replace(run.data, tokens=tokens),
                    schedule=dataclasses.replace(run.schedule, warmup_tokens=0),
                    ptq=dataclasses.replace(run.ptq, methods=()),
                    runtime=dataclasses.replace(run.runtime, out=str(scratch)),
                )
            )
        train(short)
        results = [result for run in short if (result := RunFolder(run).result())]
        seconds = sum(result["seconds"] for result in results)
        say(f"{WARM_STEPS} steps: {seconds:.1f} s")
        shutil.rmtree(scratch)
    return seconds


def _tiny(run: Run) -> Run:
    return dataclasses.replace(run, data=dataclasses.replace(run.data, tokens=40 * run.data.batch_tokens))
