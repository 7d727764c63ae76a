"""How much memory the training of a stack takes, from a count of the tensors that are there at once.

Memory is largest at one of a few moments, which are counted one by one: where the gradient of the logits is taken; in
the backward pass of a block, be it the last one, when all blocks are kept still (`scaling.study.saved_tensors`), or the
first one, when the gradients of all others are there; in the update; where members leave or are forked; where a
checkpoint is written; and where a model is measured in all its quantizations. The largest of them counts.

Every moment takes so many bytes for each member and some once. Those of a training step take none once: their memory is
proportional to the members.

On a CPU the count is within 5% of the tensors that are there (tests/scaling/study/test_memory.py). What the system
counts as the process's memory is more, by what the process takes without a tensor and by the holes that its heap is
left with: `PROCESS` and `HEAP`, which are measured. With them it is within 15%. There was no GPU to measure that path
on.

Bytes throughout; letters as in `scaling.study.saved_tensors`, S tokens of one model in one pass.
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
from scaling.study import saved_tensors
from scaling.study.saved_tensors import FLOAT, HALF, Sizes
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
    sizes, models = Sizes(stack, device_of(stack[0])), at_once(busy(stack))
    found = [(moment, _seen(moment, sizes)) for moment in moments(stack, sizes)]
    moment, seen = max(found, key=lambda pair: pair[1].of(models))
    return Memory(models=models, tensors=moment.of(models), total=seen.of(models), moment=moment.name)


def means(stack: Sequence[Run]) -> float:
    """Means of weights that are kept at once, for each model that is there."""
    averaging = [run for run in stack if run.schedule.kind == "average"]
    ends = ((run, run.steps - run.first_step) for run in averaging)
    windows = [range(end - run.step_at(run.schedule.decay_tokens), end) for run, end in ends]
    return at_once(windows) / at_once(busy(stack))


def most_models(runs: Sequence[Run], limit: float) -> int:
    """How many models of these runs, which are of one shape, fit into `limit` bytes together: at least 1, whether or
    not one does."""
    sizes = Sizes(runs, device_of(runs[0]))
    found = [_seen(moment, sizes) for moment in moments(runs, sizes)]
    return max(1, min(int((limit - moment.once) // moment.each) for moment in found))


def device_of(run: Run) -> str:
    """The device that a run is computed on, also where that is another machine's."""
    return resolve_device("auto") if run.runtime.device == "auto" else run.runtime.device


def _seen(moment: Moment, s: Sizes) -> Moment:
    """A moment as the system counts it: with the rest of the process and the holes of its heap. Weights and moments of
    the optimizer, which stay where they are, leave none."""
    if not s.on_cpu:
        # What the caching allocator takes beyond it was not measured: `scaling.study.machine` has a margin.
        return moment
    fixed = PROCESS + (COMPILER if s.compiled else 0)
    if s.run.tracking.mode != "off":
        fixed += TRACKING + (TABLES if settings_of(s.run) else 0)
    stays, heap = 3 * s.weights_bytes, HEAP_HALF if s.half else HEAP
    return Moment(moment.name, stays + heap * (moment.each - stays), fixed + heap * moment.once)


def moments(stack: Sequence[Run], s: Sizes) -> list[Moment]:
    """Every moment at which the memory of a stack may be largest."""
    found = [*in_a_step(s), _update(s), _taking(s, forks=len(families(stack)) < len(stack))]
    if s.on_cpu:
        # The file of one model is put together in memory.
        found.append(Moment("checkpoint", 3 * s.weights_bytes, 3 * s.weights_bytes))
    found += when_measured(s)
    more = means(stack) * s.weights_bytes
    return [moment._replace(each=moment.each + more) for moment in found]


def in_a_step(s: Sizes) -> list[Moment]:
    """Of the forward and backward passes of one update."""
    run, tokens = s.run, s.run.tokens_at_once
    attention, feed_forward = saved_tensors.by_attention(s), saved_tensors.by_feed_forward(s)
    block = tokens * (sum(attention.values()) + sum(feed_forward.values()))
    block += saved_tensors.by_weights(s, "weights", s.block_weights)
    stream = FLOAT * tokens * s.d  # the residual stream, or its gradient
    # Weights and two moments; the batch, and of this pass its tokens as the embedding and the loss take them.
    always = 3 * s.weights_bytes + TOKEN * (run.data.batch_tokens + 2 * tokens)
    from_earlier_passes = s.weights_bytes if tokens < run.data.batch_tokens else 0
    recomputed = run.runtime.checkpoint_activations

    def moment(name: str, blocks: int, more: float, *, gradients: float = 0.0) -> Moment:
        """With so many `blocks` kept, or what they are computed again from, and `gradients` of weights, in bytes."""
        below = blocks * (stream if recomputed else block)
        return Moment(name, always + max(gradients, from_earlier_passes) + below + more)

    def through(part: dict[str, float], *names: str) -> float:
        """What is given up of a part once its backward pass is through with these."""
        return tokens * sum(part.get(name, 0) for name in names)

    found = [moment("loss", s.layers, _at_the_loss(s))]
    for below in {s.layers - 1, 0}:
        above = s.weights_bytes - FLOAT * (below + 1) * s.block_weights
        above -= 0 if run.model.tied_head else FLOAT * s.head_weights  # the embedding's own comes last
        # The block, the gradient that comes into it, and where it is computed again what from.
        here = block + stream * (1 + recomputed)

        # Behind `down` the norm has the gradient that comes in, in float32 too, and the one that goes out.
        work = s.f * (3 * s.c if s.compiled else s.c + FLOAT + FLOAT * s.half)
        more = here - through(feed_forward, "input of down") + tokens * work
        found.append(moment("feed-forward layer", below, more, gradients=above))

        # All of the feed-forward layer is through, `out` and its norm: gradients of probabilities and of scores.
        work = 2 * s.c * (s.d + s.heads * s.length) if s.on_cpu else 2 * (s.c + FLOAT) * s.d
        more = here - through(feed_forward, *feed_forward) - through(attention, "input of out", "extra norm")
        by_then = above + FLOAT * (s.block["layers.0.gate_up"] + s.block["layers.0.down"])
        found.append(moment("attention", below, more + tokens * work, gradients=by_then))

        if not s.compiled:
            # In the forward pass, in front of `down`: the product of gate and up while it is normed, or what rounding
            # takes; qkv and mixed values, which have a name still; the stream with and without what attention adds.
            work = max(s.c * s.f * (1 + s.half), FLOAT * s.f * s.copies("activations", s.f)) + 4 * s.c * s.d
            more = block - through(feed_forward, "input of down") + 2 * stream + tokens * work
            found.append(moment("forward pass", below, more))
        if s.custom and not s.compiled:
            # In front of the backward matmuls of gate_up.
            copies = max(s.copies("dx_gradients", 2 * s.f), s.copies("dw_gradients", tokens))
            more = here - through(feed_forward, "input of down", "extra norm", "silu", "gate_up")
            more += tokens * 2 * s.f * (s.c + FLOAT * copies)
            found.append(moment("rounding of gradients", below, more, gradients=above))
    return found


def _at_the_loss(s: Sizes) -> float:
    """What the head keeps, and what is there when the gradient of the logits is: the loss keeps the logarithms of the
    probabilities, their gradient comes in, and that of the logits goes out."""
    chunk, weights = s.run.tokens_at_once, saved_tensors.by_weights(s, "head", s.head_weights)
    if s.run.runtime.loss_tokens is not None:
        # The stream is kept instead, and the head's gradient is summed over chunks of whole sequences.
        weights += FLOAT * (chunk * s.d + s.head_weights)
        chunk = min(chunk, max(1, s.run.runtime.loss_tokens // s.length) * s.length)
    # A compiled backward pass writes the gradient of the logits over the logits, which it keeps.
    logits = s.c if s.compiled else 3 * FLOAT
    return weights + chunk * (saved_tensors.by_head(s) + logits * s.vocabulary)


def _update(s: Sizes) -> Moment:
    """Gradients are given up one by one; beside each there are the clipped one and two tensors more."""
    left, most = 4 * s.weights_bytes, 0
    for size in s.matrices.values():
        most = max(most, left + 3 * FLOAT * size)
        left -= FLOAT * size
    return Moment("update", most)


def _taking(s: Sizes, forks: bool) -> Moment:
    """`Stack.take`: copies of weights and moments, one matrix of them twice. Members leave one by one, so all but one
    stay; or one is forked, and then as many are copied as there are at most."""
    copies = 3 * s.weights_bytes + 2 * FLOAT * max(s.matrices.values())
    return Moment("leaving", 3 * s.weights_bytes + copies, 0 if forks else -copies)


def when_measured(s: Sizes) -> list[Moment]:
    """Of the members' weights and moments, and one of them at a time in all its quantizations
    (`scaling.ptq.measure`)."""
    run = s.run
    each, windows = 3 * s.weights_bytes, TOKEN * run.data.eval_windows * (s.length + 1)
    found = [Moment("evaluation", each, windows + _evaluated(s))]
    settings = settings_of(run)
    if not settings:
        return found
    together = min(len(settings), max(1, STACK_PARAMETERS * FLOAT // s.weights_bytes))
    calibrates = any(setting.calibration_tokens for setting in settings)
    once = windows + together * s.weights_bytes
    once += s.layers * (3 * s.d**2 + s.f**2) * 2 * FLOAT * calibrates  # squares of the inputs of each matrix in float64
    # Settings that differ in their formats alone are worked on together. Of each weight in each of them round to
    # nearest has two float32 values at once; gptq (a float64 copy, results, errors) and awq (candidates, errors) ten.
    formats = Counter((x.method, x.weights.program) for x in settings)
    for (method, _), count in formats.items():
        count = min(count, together)
        values = max(count * w * min(s.layers, max(1, VALUES // (count * w))) for w in s.block.values())
        found.append(Moment(method, each, once + values * FLOAT * (2 if method == "rtn" else 10)))
    side_by_side = min(together, best_size(run, "cpu" if s.on_cpu else "cuda", run.runtime.threads or 1))
    evaluated = side_by_side * (s.weights_bytes + _evaluated(s))
    return [*found, Moment("evaluation after quantization", each, once + evaluated)]


def _evaluated(s: Sizes) -> float:
    """Of a forward pass that keeps nothing, always in eager mode: the most of attention, feed-forward layer and
    head."""
    run = s.run
    tokens = min(run.evaluated_at_once(run.precision), run.data.eval_windows) * s.length
    stream = 2 * FLOAT * s.d
    casts = HALF * s.half
    head = stream + casts * s.d + 2 * FLOAT * s.vocabulary  # the logits, and the logarithms of their probabilities
    qkv = 3 * s.c * s.d
    scores = 2 * s.c * s.heads * s.length if s.on_cpu else s.c * s.d
    attention = stream + qkv + (2 * FLOAT + s.c + 2 * casts) * s.d + scores
    rounding = max(FLOAT * s.copies("activations", s.f), casts)
    feed_forward = stream + qkv + s.c * s.d + (3 * s.c + FLOAT + rounding) * s.f
    weights = HALF * s.head_weights if s.half else FLOAT * s.head_weights * s.quantizes("head")
    return tokens * max(head, attention, feed_forward) + weights
