"""The Hydra sweeper of this project: a grid -> what is still to do -> stacks -> the launcher that was chosen.

Hydra's own sweeper makes a job of every point. Here a job is a stack of models: the runs that are not done yet are
grouped by shape, each group is written to a file, and the launcher gets one short override a job, `+stack=FILE`.
Whether a run is done is decided on disk and nowhere else: launchers lose what finished jobs return when one is killed.
"""

import dataclasses
import functools
import os
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.plugins import Plugins
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from scaling.config.run import Run
from scaling.console.cli import UnfinishedError
from scaling.console.job import is_done
from scaling.console.terminal import PLAIN_VARIABLE, duration, note
from scaling.data.corpus import Corpus
from scaling.data.shards import prepare
from scaling.errors import InputError
from scaling.records.run_folder import RunFolder
from scaling.records.writer import holder
from scaling.study.gpus import offered, shares, visible
from scaling.study.grid import study_runs, up_to
from scaling.study.jobs import cost_together, stacks, waves, with_threads, write_stack
from scaling.study.launcher import threads_per_job, workers
from scaling.study.memory import device_of
from scaling.study.names import named
from scaling.study.slurm.dispatch import dispatch
from scaling.study.slurm.settings import is_slurm, slurm_settings

NAMED = 3  # run ids in a message


class StackSweeper:
    """`hydra.sweeper` of every study; `hydra_plugins/scaling_stacks.py` makes it known to Hydra."""

    def __init__(
        self, params: Mapping[str, Any] | None, grids: Sequence[Mapping[str, Any]], largest_N: float | None = None
    ):
        self.params, self.grids, self.largest_N = params or {}, grids, largest_N

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.context, self.launcher_config, self.function = hydra_context, config.hydra.launcher, task_function
        self.slurm = slurm_settings(config.hydra.launcher) if is_slurm(config.hydra.launcher) else None
        if self.slurm:
            return
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=functools.partial(is_done, task_function), config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        """Train what is not done yet of the study.

        Raises:
            InputError: a point of the grid cannot be used; nothing was trained.
            UnfinishedError: some runs are not done, for reasons that were noted and lie in their folders.
        """
        runs = up_to(self.largest_N, study_runs(self.params, self.grids, arguments, self.context.config_loader))
        runs = named(runs)
        todo, refused = remaining(runs)
        for line in refused:
            note(line)
        planned = waves(todo)
        prepare_corpora(todo)
        done = len(runs) - len(todo) - len(refused)
        note(f"{runs[0].study}: {len(runs)} runs, {done} of them done, {len(todo)} to train")
        place, cache = RunFolder(runs[0]).path.parent, Path(runs[0].runtime.cache)
        note(f"runs go to {place.absolute()}, corpora to {cache.absolute()}")
        # Jobs are composed with the study's file, as the sweep is: Hydra wants to see its launcher and sweeper again.
        self.study = [argument for argument in arguments if argument.startswith("sweeps=")]
        launched = 0
        while True:
            if self.slurm:
                with Watch(todo):
                    dispatch(planned, self.slurm, self.function)
                if self.slurm.detach and todo:
                    if refused:
                        raise UnfinishedError(
                            f"{len(refused)} of {len(runs)} runs cannot be used; SLURM has the others"
                        )
                    return
            for wave in planned if not self.slurm else ():
                launched += self._launch(wave, launched)
            if not wait_for_others(runs):
                break
            planned = waves(remaining(runs)[0])
        missing = [run.run_id for run in runs if RunFolder(run).result() is None]
        if missing or refused:
            count = max(len(missing), len(refused))
            ids = ", ".join(missing[:NAMED]) + (", ..." if len(missing) > NAMED else "")
            raise UnfinishedError(f"{count} of {len(runs)} runs not done: {ids}; run again to go on")
        note(f"{runs[0].study}: all {len(runs)} runs are done, {len(todo)} of them now")

    def _launch(self, runs: list[Run], first_job: int) -> int:
        """Train one wave; returns its number of jobs. What a job could not do is found on disk afterwards."""
        at_once = workers(self.launcher_config)
        jobs = stacks(runs, at_once or 1)
        threads = threads_per_job(self.launcher_config, len(jobs))
        overrides = []
        for stack in jobs:
            path = write_stack(with_threads(stack, threads) if threads else stack)
            place = {"study": stack[0].study, "runtime.out": str(Path(stack[0].runtime.out).absolute())}
            job = [f"+stack={quoted(str(path))}", *(f"{k}={quoted(v)}" for k, v in place.items())]
            overrides.append([*self.study, *job])
        if len(jobs) > 1 and at_once != 1:
            os.environ.setdefault(PLAIN_VARIABLE, "1")
        try:
            with Watch(runs), offered(self._gpus(runs, at_once or len(jobs))):
                results = self.launcher.launch(overrides, initial_job_idx=first_job)
            for result in results:
                _ = result.return_value  # raises what a job raised
        except Exception as fault:
            note(f"{type(self.launcher).__name__}: {type(fault).__name__}: {' '.join(str(fault).split())}")
        return len(jobs)

    def _gpus(self, runs: Sequence[Run], processes: int) -> list[str]:
        """The GPU of each process that a launcher starts here; none where this process does the work itself."""
        return shares(visible(), processes) if processes > 1 and device_of(runs[0]) == "cuda" else []


class Watch:
    """Says on stderr, as runs of a wave end, how far the wave is: each job reports its own stack only. A context."""

    EVERY = 5.0  # seconds between looks at the disk

    def __init__(self, runs: Sequence[Run]):
        self.runs, self.ended = runs, threading.Event()
        self.thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> None:
        if len(self.runs) > 1:
            self.thread.start()

    def __exit__(self, *_) -> None:
        self.ended.set()

    def _watch(self) -> None:
        began, total, said = time.monotonic(), cost_together(self.runs), 0
        while not self.ended.wait(self.EVERY):
            done = [run for run in self.runs if RunFolder(run).result() is not None]
            if said < len(done) < len(self.runs):
                said, share = len(done), cost_together(done) / total
                left = duration((time.monotonic() - began) * (1 - share) / share)
                note(
                    f"{self.runs[0].study}: {said} of {len(self.runs)} runs done, {share:.0%} of the work, {left} left"
                )


def wait_for_others(runs: Sequence[Run], every: float = 5.0) -> bool:
    """Wait while other processes train runs that are not done; False: there are none."""
    waited, said = False, ""
    while held := [by for run in runs if RunFolder(run).result() is None and (by := holder(RunFolder(run).path))]:
        who = " and ".join(sorted(set(map(str, held))))
        line = f"{runs[0].study}: {len(held)} runs are trained by {who}; waiting for them"
        if line != said:
            note(said := line)
        waited = True
        time.sleep(every)
    return waited


def remaining(runs: Sequence[Run]) -> tuple[list[Run], list[str]]:
    """The runs that are not done, and a line for each whose folder cannot be used."""
    todo, refused = [], []
    for run in runs:
        try:
            if RunFolder(run).state() != "done":
                todo.append(run)
        except InputError as fault:
            refused.append(f"{run.run_id}: {fault}")
    return todo, refused


def prepare_corpora(runs: Sequence[Run]) -> None:
    """Build every corpus that the runs need: once, here, and not in all workers at the same time.

    Raises:
        InputError: a corpus cannot be had, or a run wants more of it than there is.
    """
    corpora: dict[str, Corpus] = {}
    for run in runs:
        source = dataclasses.replace(run.data, tokens=run.data.batch_tokens, repeat=False)
        key = f"{run.runtime.cache} {source}"
        if key not in corpora:
            corpora[key] = prepare(source, Path(run.runtime.cache), note)
        corpora[key].check_horizon(run.data)


def quoted(text: str) -> str:
    """A string value in the grammar of Hydra's overrides."""
    return "'" + text.replace("'", r"\'") + "'"
