"""How much memory the training of a stack takes, from a count of the tensors that are there at once.

Memory is largest at one of a few moments, which are counted one by one: at the loss; in the forward pass of the last
block; in the backward pass of a block, be it the last one, when what all blocks keep is there still, or the first one,
when the gradients of all others are there (`scaling.study.passes` measures what a block and the loss take); in the
update; where members leave or are forked; where a checkpoint is written; and where a model is measured in all its
quantizations. The largest of them counts.

Every moment takes so many bytes for each member and some once. Those of a training step take none once: their memory is
proportional to the members.

On a CPU, in eager mode, the count of a step is within 1% of the tensors that are there
(tests/scaling/study/test_memory.py). What the system counts as the process's memory is more, by what the process takes
without a tensor and by the holes that its heap is left with: `PROCESS` and `HEAP`, which are measured. With them it is
within 15%. There was no GPU to measure that path on.

Bytes throughout.
"""

import dataclasses
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from scaling.config.run import Run
from scaling.config.runtime import resolve_device
from scaling.model.stack_size import best_size
from scaling.ptq.apply import VALUES
from scaling.ptq.measure import STACK_PARAMETERS
from scaling.ptq.settings import settings_of
from scaling.study.passes import FLOAT, Shapes, block_pass, evaluation_pass, head_pass
from scaling.training.families import at_once, busy, families

TOKEN = 8
"""Of one token's number."""
PROCESS = 270e6
"""What a training process takes before it has a tensor, with what PyTorch sets up in its first steps (torch 2.13)."""
TRACKING, TABLES = 35e6, 70e6
"""Of W&B in the same process, and of its tables once there are quantizations."""
COMPILER = 200e6
"""Of torch.compile in the same process; the compilers that it starts have ended before memory is largest."""
HEAP, HEAP_HALF = 1.5, 1.7
"""What glibc's heap takes from the system for each byte of the tensors that come and go, at the peak: 1.3 to 1.7 in
steps of models of 24k to 30M parameters, and 1.4 to 1.9 in bfloat16. glibc serves aligned blocks from holes that are
larger than the block, so a tensor does not fit into the hole that its like has left, and `scaling.model.allocator` has
it keep such holes, because that is faster. With every tensor in a mapping of its own it is 1.0."""


class Moment(NamedTuple):
    """Memory of the tensors at one moment: `each * M + once` for M models."""

    name: str
    each: float
    once: float = 0.0

    def of(self, models: int) -> float:
        return self.each * models + self.once


@dataclasses.dataclass(frozen=True, kw_only=True)
class Memory:
    """The peak of a stack."""

    models: int
    """Models that are there at once: runs that are one copy for as long count once."""
    tensors: float
    """Bytes of tensors on the device."""
    total: float
    """Bytes that the device (a GPU) or the system (a CPU) counts for the process."""
    moment: str
    """When that is."""


def memory(stack: Sequence[Run]) -> Memory:
    """What training and measuring a stack takes."""
    shapes, models = Shapes.of(stack, device_of(stack[0])), at_once(busy(stack))
    candidates = [(moment, _seen(moment, stack[0], shapes)) for moment in moments(stack, shapes)]
    moment, seen = max(candidates, key=lambda pair: pair[1].of(models))
    return Memory(models=models, tensors=moment.of(models), total=seen.of(models), moment=moment.name)


def means(stack: Sequence[Run]) -> float:
    """Averages of weights that are there at once, for each model that is there."""
    averaging = [run for run in stack if run.schedule.kind == "average"]
    ends = ((run, run.steps - run.first_step) for run in averaging)
    windows = [range(end - run.step_at(run.schedule.decay_tokens), end) for run, end in ends]
    return at_once(windows) / at_once(busy(stack))


def most_models(runs: Sequence[Run], limit: float) -> int:
    """How many models of these runs, which are of one shape, fit into `limit` bytes together: at least 1, whether or
    not one does."""
    shapes = Shapes.of(runs, device_of(runs[0]))
    candidates = [_seen(moment, runs[0], shapes) for moment in moments(runs, shapes)]
    return max(1, min(int((limit - moment.once) // moment.each) for moment in candidates))


def device_of(run: Run) -> str:
    """The device that a run is computed on, also where that is another machine's."""
    return resolve_device("auto") if run.runtime.device == "auto" else run.runtime.device


def _seen(moment: Moment, run: Run, s: Shapes) -> Moment:
    """A moment as the system counts it: with the rest of the process and the holes of its heap. Weights and moments of
    the optimizer, which stay where they are, leave none."""
    if s.device != "cpu":
        # What the caching allocator takes beyond it was not measured: `scaling.study.machine` has a margin.
        return moment
    fixed = PROCESS + (COMPILER if s.compiled else 0)
    if run.tracking.mode != "off":
        fixed += TRACKING + (TABLES if settings_of(run) else 0)
    stays, heap = 3 * s.weights_bytes, HEAP_HALF if s.dtype == "bfloat16" else HEAP
    return Moment(moment.name, stays + heap * (moment.each - stays), fixed + heap * moment.once)


def moments(stack: Sequence[Run], s: Shapes) -> list[Moment]:
    """Every moment at which the memory of a stack may be largest."""
    candidates = [*in_a_step(stack[0], s), _update(s), _taking(s, forks=len(families(stack)) < len(stack))]
    if s.device == "cpu":
        # The file of one model is put together in memory.
        candidates.append(Moment("checkpoint", 3 * s.weights_bytes, 3 * s.weights_bytes))
    candidates += when_measured(stack[0], s)
    more = means(stack) * s.weights_bytes
    return [moment._replace(each=moment.each + more) for moment in candidates]


def in_a_step(run: Run, s: Shapes) -> list[Moment]:
    """Of the forward and backward passes of one update."""
    tokens, layers = run.tokens_at_once, run.model.n_layers
    accumulates = tokens < run.data.batch_tokens
    block, head = block_pass(s, tokens, accumulates), head_pass(s, tokens)
    block_weights = FLOAT * sum(s.block_matrices.values())
    # Weights and two moments; the batch, and of this pass its tokens as the embedding and the loss take them.
    always = 3 * s.weights_bytes + TOKEN * (run.data.batch_tokens + 2 * tokens)
    from_earlier_passes = s.weights_bytes if accumulates else 0

    def moment(name: str, blocks: int, more: float, gradients: float = 0.0) -> Moment:
        """With so many `blocks` below, and `gradients` of weights above, in bytes."""
        return Moment(name, always + max(gradients, from_earlier_passes) + blocks * block.saved + more)

    candidates = [
        moment("forward pass", layers - 1, block.forward),
        moment("loss", layers, max(head.forward, head.backward)),
    ]
    for below in {layers - 1, 0}:
        above = s.weights_bytes - (below + 1) * block_weights
        above -= 0 if run.model.tied_head else FLOAT * s.matrices["embedding"]  # its gradient comes last
        candidates.append(moment("backward pass", below, block.backward, above))
    return candidates


def _update(s: Shapes) -> Moment:
    """Gradients are given up one by one; beside each there are the clipped one and two tensors more."""
    left, most = 4 * s.weights_bytes, 0
    for size in s.matrices.values():
        most = max(most, left + 3 * FLOAT * size)
        left -= FLOAT * size
    return Moment("update", most)


def _taking(s: Shapes, forks: bool) -> Moment:
    """`Stack.take`: copies of weights and moments, one matrix of them twice. Members leave one by one, so all but one
    stay; or one is forked, and then as many are copied as there are at most."""
    copies = 3 * s.weights_bytes + 2 * FLOAT * max(s.matrices.values())
    return Moment("leaving", 3 * s.weights_bytes + copies, 0 if forks else -copies)


def when_measured(run: Run, s: Shapes) -> list[Moment]:
    """Of the members' weights and moments, and one of them at a time in all its quantizations
    (`scaling.ptq.measure`)."""
    each, windows = 3 * s.weights_bytes, TOKEN * run.data.eval_windows * (s.length + 1)
    candidates = [Moment("evaluation", each, windows + _evaluated(run, s))]
    settings = settings_of(run)
    if not settings:
        return candidates
    side_by_side = best_size(run, "cpu" if s.device == "cpu" else "cuda", run.runtime.threads or 1)
    # Of several models that are measured together there are as many copies as of one, or as are evaluated at once.
    together = min(max(len(settings), side_by_side), max(1, STACK_PARAMETERS * FLOAT // s.weights_bytes))
    once = windows + together * s.weights_bytes
    if any(setting.calibration_tokens for setting in settings):
        d, f, layers = run.model.d_model, run.model.width_ff, run.model.n_layers
        once += layers * (3 * d**2 + f**2) * 2 * FLOAT  # squares of the inputs of each matrix in float64
    # Settings that differ in their formats alone are worked on together. Of each weight in each of them round to
    # nearest has two float32 values at once; gptq (a float64 copy, results, errors) and awq (candidates, errors) ten.
    formats = Counter((x.method, x.weights.program) for x in settings)
    for (method, _), count in formats.items():
        count = min(count, together)
        values = max(
            count * w * min(run.model.n_layers, max(1, VALUES // (count * w))) for w in s.block_matrices.values()
        )
        candidates.append(Moment(method, each, once + values * FLOAT * (2 if method == "rtn" else 10)))
    evaluated = min(together, side_by_side) * (s.weights_bytes + _evaluated(run, s))
    return [*candidates, Moment("evaluation after quantization", each, once + evaluated)]


def _evaluated(run: Run, s: Shapes) -> float:
    """Of a forward pass of an evaluation."""
    return evaluation_pass(s, min(run.evaluated_at_once(run.precision), run.data.eval_windows) * s.length)
