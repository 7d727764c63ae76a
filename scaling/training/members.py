"""The runs of a stack on their way: where each starts, what is counted of it, and which of them one model still
serves."""

import dataclasses
import math
from collections.abc import Sequence

import torch

from scaling.config.run import Run
from scaling.errors import InputError
from scaling.ptq.measure import is_measured
from scaling.records.checkpoint import Checkpoint
from scaling.records.run_folder import RunFolder, parent_snapshot, snapshot_path
from scaling.training.adamw import SKIPS
from scaling.training.families import family, parting
from scaling.training.schedule import learning_rate
from scaling.training.weight_average import WeightMean

MOST_COST = 0.02
"""Share of a run's training that a held-out curve on the way may take."""
FORWARD = 0.5
"""What a token of an evaluation costs, in tokens trained on: a third of the arithmetic, in passes that are smaller and
not compiled."""


def has_val_curve(run: Run, processes: int = 1) -> bool:
    """Whether losses on held-out windows are measured while the run is trained: where that is asked for, and cheap.
    One of several processes measures, and the others wait."""
    windows, batch = min(run.tracking.val_windows, run.data.eval_windows), run.data.batch_tokens
    points = run.tracking.val_points_per_doubling * math.log2(run.steps / max(1, run.first_step)) + 2
    cost = points * windows * run.data.sequence_length * FORWARD * processes
    return windows > 0 and cost <= MOST_COST * (run.steps - run.first_step) * batch


class Member:
    """One run on its way through a stack, which several processes may share."""

    def __init__(self, run: Run, processes: int = 1):
        self.run = run
        self.has_val_curve = has_val_curve(run, processes)
        self.folder = RunFolder(run)
        self.start: Checkpoint | None = None
        self.mean = WeightMean(run) if run.schedule.kind == "average" else None
        self.seconds, self.skipped, self.skipped_in_a_row = 0.0, 0, 0
        self.shared_steps = 0  # since this process started: a checkpoint does not say what was before
        self.snapshot_steps = {run.step_at(tokens): tokens for tokens in run.snapshots}
        self.broken = False  # its weights or its loss are not finite
        self.last_step: int | None = None
        """The step behind which it counts as diverged; its model is left alone from there on."""

    def open(self, data_sha: str, eval_sha: str) -> None:
        """Find out where the run starts, and make its folder.

        Raises:
            InputError: its folder, or the snapshot that it branches from, cannot be used.
        """
        self.start = self._find_start()
        for tokens, _ in self.unmeasured(self.start.step if self.start else 0):
            if not (path := snapshot_path(self.folder.path, tokens)).exists():
                raise InputError(
                    f"{path}: is missing, and not all that was asked for was measured of it; delete "
                    f"{self.folder.checkpoint_path} to train the run from its start"
                )
        self.folder.open(data_sha, eval_sha)
        self.seconds = self.start.seconds if self.start else 0.0
        self.skipped = self.start.skipped if self.start else 0
        self.skipped_in_a_row = self.start.skipped_in_a_row if self.start else 0

    def unmeasured(self, step: int) -> list[tuple[int, int]]:
        """Snapshots before `step` whose records are not whole: the tokens they were asked for at, and were taken at."""
        batch, first = self.run.data.batch_tokens, self.run.first_step
        taken = [(tokens, at * batch) for at, tokens in self.snapshot_steps.items() if first < at < step]
        return [(tokens, seen) for tokens, seen in taken if not is_measured(self.folder, seen)]

    def count(self, step: int, seconds: float, made: bool, shared: bool) -> None:
        """Count the update that makes `step` of them: the time that it took, whether it was made or skipped for a
        gradient that was not finite, and whether it was one with others."""
        self.seconds += seconds
        self.skipped += not made
        self.skipped_in_a_row = 0 if made else self.skipped_in_a_row + 1
        self.shared_steps += shared
        if self.diverged:
            self.last_step = step

    @property
    def diverged(self) -> bool:
        return self.broken or self.skipped_in_a_row >= SKIPS

    def is_due(self, step: int) -> bool:
        """Whether something is recorded of it behind `step` updates, whatever comes of them."""
        at_end = step == self.run.steps
        return at_end or step in self.snapshot_steps or self.is_point(step) or self.is_val_point(step)

    def is_point(self, step: int) -> bool:
        """Whether its training curve has a point there."""
        return step == self.run.steps or self.run.tracking.is_point(step)

    def is_val_point(self, step: int) -> bool:
        """Whether its curve on held-out windows has a point there."""
        first, last = self.run.first_step, self.run.steps
        return self.has_val_curve and step > first and (step == last or self.run.tracking.is_val_point(step))

    def _find_start(self) -> Checkpoint | None:
        if self.folder.state() == "partial":
            return Checkpoint.load(self.folder.checkpoint_path)
        if self.run.branch.parent is None:
            return None
        parent = Checkpoint.load(parent_snapshot(self.run))
        return Checkpoint(parent.weights, parent.first, parent.second, parent.step, seconds=0.0, skipped=0)


@dataclasses.dataclass(eq=False)
class SharedModel:
    """The members that one model of a stack serves: one, or several of a family that are one copy so far."""

    members: list[Member]

    @property
    def farthest(self) -> Member:
        """The member with the farthest horizon, which is here for as long as any."""
        return max(self.members, key=lambda member: member.run.steps)

    @property
    def run(self) -> Run:
        """What the model is trained by: any member's run says the same until they part."""
        return self.farthest.run

    def parts_behind(self, step: int) -> int:
        """How many updates are taken at least before members part or one is at its end, from `step` on, where all are
        one."""
        farthest = self.run
        return min((parting(m.run, farthest, step) for m in self.members), default=step) - step

    def parted(self, step: int) -> list["SharedModel"]:
        """A model for each learning rate that members have in update `step`; itself where that is one."""
        if len(self.members) < 2:
            return [self]
        by_rate: dict[float, list[Member]] = {}
        for member in self.members:
            by_rate.setdefault(learning_rate(member.run, step), []).append(member)
        return [self] if len(by_rate) == 1 else [SharedModel(members) for members in by_rate.values()]


def grouped(members: Sequence[Member]) -> list[list[int]]:
    """Which members are one copy where they start: the places of those that one model serves.

    Members of a family are, if all are fresh, or if their checkpoints are of one step and equal bit for bit. Others are
    not: one was added to its family later, or a kill came between the writing of two checkpoints.
    """
    groups: list[list[int]] = []
    groups_of: dict[str, list[list[int]]] = {}
    for i, member in enumerate(members):
        key = family(member.run)
        known = groups_of.setdefault(key, []) if key else []
        group = next((group for group in known if _same(members[group[0]].start, member.start)), None)
        if group is None:
            group = []
            known.append(group)
            groups.append(group)
        group.append(i)
    return groups


def _same(a: Checkpoint | None, b: Checkpoint | None) -> bool:
    if a is None or b is None:
        return a is b
    groups = ((a.weights, b.weights), (a.first, b.first), (a.second, b.second))
    return a.step == b.step and all(
        ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
        for ours, theirs in groups
    )
