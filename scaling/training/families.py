"""Runs that are one model until their learning rates part.

Runs that differ in nothing but their horizon and their decay start from the same weights and see the same batches. All
that can make them differ is the learning rate, and under a constant or a warm-up-stable-decay schedule that is the same
until the first of them decays. Up to there one copy serves them all, to the same bits: they are a *family*.

A family is a tree whose trunk is the run with the farthest horizon. Each other run leaves it where its rate does, and a
run without a decay at its end. So a run's own updates are those behind the last place where it is still one with a run
of a farther horizon, and the own updates of all runs add up to the tree:

    32 |----------------------------====
    16 |              ==                      - the peak, = the decay: 32 + 2 + 1 updates are computed
     8 |       =                              in place of 32 + 16 + 8
"""

import json
from collections.abc import Iterable, Sequence

from scaling.config.run import Run
from scaling.training.schedule import learning_rate

KINDS = ("constant", "wsd", "average")
"""Schedules that stay at their peak for a while. The others fall from the warm-up on, each at its own pace."""


def family(run: Run) -> str | None:
    """Equal for runs that compute the same updates as long as their learning rates are equal; None where a schedule
    leaves nothing to share."""
    if run.schedule.kind not in KINDS:
        return None
    identity = run.identity()
    # Batches are a function of the step alone. Of the schedule nothing is said but the warm-up: rates are compared.
    identity["data"] = {k: v for k, v in identity["data"].items() if k not in ("tokens", "repeat")}
    identity["schedule"] = run.schedule.warmup_tokens
    del identity["snapshots"]
    return json.dumps([run.stack_key, identity], sort_keys=True)


def families(runs: Iterable[Run]) -> list[list[Run]]:
    """The runs by family, in order of their first ones; a run that shares nothing is by itself."""
    by_family: dict[object, list[Run]] = {}
    for i, run in enumerate(runs):
        by_family.setdefault(family(run) or i, []).append(run)
    return list(by_family.values())


def parting(a: Run, b: Run, start: int = 0) -> int:
    """The first update, from `start` on, in which the learning rates of two runs of a family differ; the end of the
    shorter one where none does before it."""
    end = min(a.steps, b.steps)
    if (a.schedule, a.steps) == (b.schedule, b.steps):
        return end
    # Warm-up and peak are common. Behind them rates can be equal for a while: two decays may begin at one place.
    decay = min(_decay(a), _decay(b))
    return next((s for s in range(max(start, decay), end) if learning_rate(a, s) != learning_rate(b, s)), end)


def _decay(run: Run) -> int:
    """The update from which on the rate may be below the peak."""
    return run.step_at(run.D - run.schedule.decay_tokens) if run.schedule.falls else run.steps


def own_updates(runs: Sequence[Run], start: int | None = None) -> list[range]:
    """For each run the updates that are computed for it and for no run of a farther horizon, when all families are
    trained as trees from `start` (None: from where each run starts) on."""
    groups: dict[object, list[int]] = {}
    for i, run in enumerate(runs):
        groups.setdefault(family(run) or i, []).append(i)
    updates = [range(0)] * len(runs)
    for group in groups.values():
        farther: list[Run] = []
        for i in sorted(group, key=lambda i: -runs[i].steps):
            run = runs[i]
            first = run.first_step if start is None else start
            updates[i] = range(max((parting(run, other, first) for other in farther), default=first), run.steps)
            farther.append(run)
    return updates


def model_steps(runs: Sequence[Run], start: int | None = None) -> int:
    """Updates of one model each that the runs take together, what they share counted once."""
    return sum(map(len, own_updates(runs, start)))


def busy(runs: Sequence[Run]) -> list[range]:
    """When each run's own copy is computed, in steps of a stack that starts all of them at once."""
    return [
        range(own.start - run.first_step, own.stop - run.first_step)
        for run, own in zip(runs, own_updates(runs), strict=True)
    ]


def at_once(times: Iterable[range]) -> int:
    """The largest number of the times that overlap: copies that are alive together."""
    changes = sorted(change for t in times if len(t) for change in ((t.start, 1), (t.stop, -1)))
    alive = most = 0
    for _, change in changes:  # of one step those that end come first
        alive += change
        most = max(most, alive)
    return most
