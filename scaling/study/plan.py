"""What is to be trained of a study, as jobs: what they take of memory, arithmetic, time and money, in words."""

import dataclasses
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from omegaconf import DictConfig

from scaling.config.run import Run
from scaling.console.accelerators import DEVICES
from scaling.console.terminal import amount, duration, note
from scaling.study import cost
from scaling.study.cost import Price, total_work
from scaling.study.jobs import makespan, stacks, waves, with_memory
from scaling.study.launcher import threads_per_job, workers
from scaling.study.machine import is_here, room
from scaling.study.memory import device_of, memory
from scaling.study.slurm.commands import LARGEST_ARRAY, UnavailableError, cluster
from scaling.study.slurm.settings import SlurmSettings, is_slurm, slurm_settings
from scaling.study.slurm.submission import shares
from scaling.study.slurm.work import EARLY

JOB_HEADINGS = ("N", "jobs", "runs", "models at once", "memory", "most in")
REMEDIES = "a lower runtime.micro_batch_tokens or runtime.loss_tokens, or runtime.checkpoint_activations=true"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """Runs that are to be trained, as the jobs of a launcher."""

    jobs: list[list[list[Run]]]
    """Waves of stacks."""
    at_once: int | None
    """Jobs that run side by side; None where all of a wave are started at once."""
    threads: int
    """CPU threads of each."""
    slurm: SlurmSettings | None
    """Of the launcher, if it is one of SLURM."""

    @staticmethod
    def of(launcher: DictConfig, runs: Sequence[Run]) -> "Plan":
        at_once = workers(launcher)
        slurm = slurm_settings(launcher) if is_slurm(launcher) else None
        jobs = [stacks(with_memory(wave, slurm.mem_gb if slurm else None), at_once or 1) for wave in waves(runs)]
        threads = threads_per_job(launcher, sum(map(len, jobs))) or 1
        return Plan(jobs=jobs, at_once=at_once, threads=threads, slurm=slurm)

    @property
    def stacks(self) -> list[list[Run]]:
        return [stack for wave in self.jobs for stack in wave]

    @property
    def runs(self) -> list[Run]:
        return [run for stack in self.stacks for run in stack]


def job_rows(plan: Plan) -> list[tuple[object, ...]]:
    """For each N its jobs, and the memory of the one that takes most: how much, and when."""
    by_size: dict[int, list[list[Run]]] = {}
    for stack in plan.stacks:
        by_size.setdefault(stack[0].N, []).append(stack)
    rows = []
    for n, of_size in sorted(by_size.items()):
        takes = [memory(stack) for stack in of_size]
        most = max(takes, key=lambda each: each.total)
        models = _span(each.models for each in takes)
        rows.append((f"{n:,}", len(of_size), _span(map(len, of_size)), models, f"{amount(most.total)}B", most.moment))
    return rows


def forecast(plan: Plan, finished: Sequence[tuple[Run, Mapping[str, Any]]], price: Price) -> Iterator[str]:
    """What training takes, in a few lines. `finished` runs of the study, with their results, give this machine's speed;
    without any it is measured."""
    all_ = total_work(plan.stacks)
    yield f"to train: {len(plan.runs)} runs, {amount(all_.tokens)} tokens, {all_.six_nd:.2e} FLOPs (6ND)"
    yield f"FLOPs: {all_.training:.2e} with head and attention, {all_.evaluation:.2e} more for evaluations"
    hours, device = price.hours(all_.total), DEVICES[price.device]
    shown = f"{hours:,.0f}" if hours >= 100 else f"{hours:.2g}"
    money = "" if price.per_hour is None else f", ${hours * price.per_hour:,.2f} at ${price.per_hour:g} an hour"
    peak = f"{price.mfu:.0%} of its {device.peak / 1e12:g} TFLOP/s in dense bf16"
    yield f"{device.name}: about {shown} hours{money}; assumed: {peak} (--device, --mfu)"
    sizes = _span(map(len, plan.stacks))
    order = f", in {len(plan.jobs)} waves (branches wait for their parents)" if len(plan.jobs) > 1 else ""
    count = f"{len(plan.stacks)} stacks of {sizes} {'run' if sizes == '1' else 'runs'}"
    yield f"jobs: {count}, {plan.at_once or 'all'} at once{order}"
    yield from _fit(plan)
    if plan.slurm:
        yield _arrays(plan.jobs, plan.slurm)
    yield from _time(plan, finished)


def _fit(plan: Plan) -> Iterator[str]:
    """What the job with the most memory takes of what there is, and which models do not fit even alone."""
    takes = [(stack[0], memory(stack)) for stack in plan.stacks]
    run, most = max(takes, key=lambda pair: pair[1].total)
    share, device = room(run, plan.at_once or 1), device_of(run)
    there = f" of the {amount(share)}B that it may take" if share is not None else ""
    yield f"memory: about {amount(most.total)}B for a job ({most.models} x N={run.N:,}){there}"
    if share is None:
        yield f"memory: {device} is not here; with runtime.memory_gb=... jobs are made to fit"
        return
    for n in sorted({run.N for run, each in takes if each.models == 1 and each.total > share}):
        yield f"too large: N={n:,} does not fit, not even one model; try {REMEDIES}"


def _arrays(jobs: Sequence[Sequence[Sequence[Run]]], slurm: SlurmSettings) -> str:
    """What SLURM gets."""
    try:
        largest = cluster().largest_array
    except UnavailableError:
        largest = LARGEST_ARRAY
    sizes = [size for wave in jobs for size in shares(len(wave), largest, slurm.array_parallelism)[2]]
    return (
        f"SLURM: {len(sizes)} {'array' if len(sizes) == 1 else 'arrays'} of {_span(sizes)} jobs (at most {largest:,} "
        f"each), {min(slurm.array_parallelism, max(map(len, jobs)))} at once"
    )


def _limits(longest: float, slurm: SlurmSettings) -> str:
    """How often the longest job has to be queued again."""
    limit = 60 * slurm.timeout_min
    usable = limit - slurm.signal_delay_s - EARLY
    if longest <= usable:
        return f"SLURM: the longest job fits into timeout_min={slurm.timeout_min}"
    if usable <= 0:
        return f"SLURM: timeout_min={slurm.timeout_min} leaves no time before the signal; use a longer one"
    again = math.ceil(longest / usable) - 1
    enough = "" if again <= slurm.max_num_timeout else f", more than max_num_timeout={slurm.max_num_timeout}"
    return f"SLURM: with timeout_min={slurm.timeout_min} the longest job is queued again {again} times{enough}"


def _time(plan: Plan, finished: Sequence[tuple[Run, Mapping[str, Any]]]) -> Iterator[str]:
    """How long it takes here."""
    rates = cost.recorded_rates(finished)
    based_on = f"at the speed of the {len(finished)} finished runs"
    if not rates:
        device = plan.runs[0].runtime.device
        if not is_here(device):
            yield f"time: unknown, {device} is not on this machine"
            return
        note("plan: measuring this machine's speed, some seconds")
        rates = cost.measured_rates(plan.runs, plan.threads)
        based_on = f"at the speed of a second of training here, eager, for N={', '.join(f'{n:,}' for n in rates)}"
    if not rates:
        yield "time: unknown, one sequence of the smallest model takes too long here to measure it"
        return
    jobs = [[cost.seconds(stack, rates) for stack in wave] for wave in plan.jobs]
    at_once = plan.at_once or (plan.slurm.array_parallelism if plan.slurm else math.inf)
    ends = (makespan(wave, int(min(at_once, len(wave)))) for wave in jobs)
    yield f"time: about {duration(sum(ends))} with evaluations, {based_on}"
    if plan.slurm:
        longest = max(map(max, jobs))
        yield f"jobs: the longest takes about {duration(longest)}, all of them {duration(sum(map(sum, jobs)))}"
        yield _limits(longest, plan.slurm)


def _span(values: Iterable[int]) -> str:
    """3, or 1 to 3."""
    values = list(values)
    return f"{min(values)} to {max(values)}" if min(values) < max(values) else str(values[0])
