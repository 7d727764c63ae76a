"""A training step along the branch of a GPU, without one: on device `meta` the same Python code runs and the same
operations are dispatched, and whatever would make a card wait for the host, or the host for the card, is seen.

A step has none of it. `LEAVING` and `SENDING` name what is done between steps: when the stack changes, and once for
many steps. A new offender fails a test, and so does one of these that is gone.
"""

import dataclasses
import functools
import itertools
from types import SimpleNamespace

import pytest
import torch

from bench.training import random_batches
from scaling.config.data import vocab_size
from scaling.console.terminal import Progress
from scaling.data import feed
from scaling.data.batches import Batches
from scaling.data.feed import Feed
from scaling.data.shards import prepare
from scaling.model.quantizers import StackPrecision
from scaling.model.transformer import EAGER, losses
from scaling.ptq.rtn import rtn
from scaling.quantization.fake_quantize import fake_quantize
from scaling.quantization.formats import parse
from scaling.training.checkpoints import restored
from scaling.training.distributed import ALONE
from scaling.training.evaluation import Evaluator
from scaling.training.gradients import Gradients
from scaling.training.loop import Loop
from scaling.training.members import Member, SharedModel
from scaling.training.record import Recorder
from scaling.training.stack import Stack
from scaling.training.steps import Steps
from tests.conftest import REPOSITORY, slow
from tests.scaling.device_modes import Refused, Watch, dispatched

META = torch.device("meta")
KEYS, SKIP = "precision.granularity_keys=channel", "precision.skip=[layers.0.qkv]"
PRESETS = sorted(path.stem for path in (REPOSITORY / "configs" / "precision").glob("*.yaml"))

SENDING = {
    "torch.from_numpy in scaling.training.steps.Steps._send",  # tables of rates
    "mixed devices of aten.copy_ in scaling.training.steps.Steps._send",  # these, and the batches
}
LEAVING = {
    "torch.tensor in scaling.training.stack.Stack.take",
    "torch.tensor in scaling.training.adamw.AdamW.__init__",
    "torch.tensor in scaling.quantization.rounding.FormatStack.__init__",
    "torch.tensor in scaling.quantization.rounding.FormatStack.column",
}


def runs_of(make_run, *overrides, members=2):
    return [make_run("runtime.dtype=float32", f"seed={seed}", *overrides) for seed in range(members)]


def steps_of(runs, left=100):
    """The steps of a stack on `meta`. The first is taken: it makes what is made once, matrices of rotations."""
    vocabulary = vocab_size(runs[0].data)
    stack = Stack.start(runs, vocabulary, [None] * len(runs), META)
    steps = Steps(stack, Gradients(runs, META, ALONE), Feed(random_batches(runs[0], vocabulary), META), left)
    steps.take()
    return steps


@pytest.mark.parametrize("preset", PRESETS)
def test_a_step_waits_for_nothing(make_run, preset):
    steps = steps_of(runs_of(make_run, f"precision={preset}"))
    with Watch(META):
        steps.take()


def test_what_many_steps_need_is_sent_at_once(make_run):
    steps = steps_of(runs_of(make_run), left=1000)
    for _ in range(len(steps.ring) - 1):
        steps.take()
    assert steps.taken == feed.STEPS
    steps.unread = 0  # nothing can be read on `meta`
    with Watch(META, known=SENDING) as watch:
        steps.take()
    assert set(watch.offences) == SENDING and watch.offences.total() == 3


@pytest.mark.parametrize(
    "overrides",
    [
        ("precision=w4a4kv4", "runtime.micro_batch_tokens=64"),
        ("precision=quartet", "runtime.checkpoint_activations=true"),
        ("precision=nvfp4", "runtime.loss_tokens=64"),
        ("precision=quest", "model.extra_norm=false", "model.tied_head=false"),
        ("precision=w4a4kv4", "precision.rounding=stochastic"),
        ("precision=w4", "precision.weights=nf4", "precision.scale_rule_weights=mse"),
        ("precision=w4", "precision.weights=uint4", "precision.estimator=clipped"),
        ("precision=w4a4kv4", "precision.weights=int4-full", "precision.granularity_weights=block4x16", KEYS, SKIP),
        ("precision=nvfp4", "precision.weights=nvfp4-rht", "precision.scale_rule_weights=e4m3_4over6"),
    ],
)
def test_however_it_is_computed(make_run, overrides):
    steps = steps_of(runs_of(make_run, *overrides))
    with Watch(META):
        steps.take()


def test_members_of_several_formats(make_run):
    runs = [make_run("runtime.dtype=float32", "precision=w4a4kv4", f"precision.weights={w}") for w in ("bf16", "int3")]
    steps = steps_of(runs)
    with Watch(META):
        steps.take()


def test_leaving_and_forking(make_run):
    steps = steps_of(runs_of(make_run, "precision=w4a4kv4", members=3))
    for chosen in ([0, 2], [0, 0, 1]):
        with Watch(META, known=LEAVING) as watch:
            steps.stack.take(chosen)
        assert set(watch.offences) == LEAVING


def test_steps_repeat_the_same_operations_in_the_same_memory(make_run):
    """What a recorded step needs: nothing is decided by values, and nothing rebinds weights or moments."""
    steps = steps_of(runs_of(make_run, "precision=w4a4kv4"))
    optimizer = steps.stack.optimizer

    def held():
        groups = (steps.stack.weights, optimizer.first, optimizer.second)
        tables = (steps.place, steps.sent, steps.rates, steps.ring, optimizer.skipped, optimizer.diverged)
        return [id(tensor) for group in groups for tensor in group.values()] + [id(tensor) for tensor in tables]

    before = held()
    first, second, third = (dispatched(steps.take) for _ in range(3))
    assert first == second == third
    assert held() == before
    assert all(w.grad is None for w in steps.stack.weights.values())


def test_operations_of_a_step_are_counted(make_run):
    """Launches of an eager step on a GPU are as many, give or take those that move no data. N = 24k has two layers."""
    sizes = ("model=24k", "data.sequence_length=64", "data.batch_tokens=128", "data.eval_windows=8")
    counts = {}
    for name, members, preset in (("w4a4kv4", 2, "w4a4kv4"), ("mixed", 4, "w4")):
        runs = runs_of(make_run, *sizes, f"precision={preset}", members=members)
        if name == "mixed":  # the second half of the members pass unquantized
            plain = [dataclasses.replace(run, precision=run.precision.unquantized()) for run in runs]
            runs = [*runs[:2], *plain[2:]]
        steps = steps_of(runs)
        batch = functools.partial(steps.feed.tokens, steps.sent, steps.place)
        parts = {"batch": batch, "step": steps.take}
        counts[name] = {part: sum(not _is_view(o) for o in dispatched(call)) for part, call in parts.items()}
    print(f"operations: {counts}")
    assert counts["w4a4kv4"]["batch"] < 10 and 500 < counts["w4a4kv4"]["step"] < 750
    # Those that pass are put back by one operation for each part that is quantized, however many they are.
    assert counts["mixed"]["step"] < counts["w4a4kv4"]["step"]


VIEWS = ("view", "expand", "transpose", "select", "slice", "split", "unsqueeze", "permute", "detach", "alias", "t.")


def _is_view(operation):
    return operation.removeprefix("aten.").lstrip("_").startswith(VIEWS)


def test_a_step_of_the_loop(make_run, corpus_cache):
    """The trainer's own step, with what it does on the host."""
    runs = runs_of(make_run, "precision=w4a4kv4", "data.tokens=51200")
    corpus = prepare(runs[0].data, corpus_cache, lambda line: None)
    windows = corpus.windows(runs[0].data.eval_windows, runs[0].data.sequence_length)
    members = [Member(run) for run in runs]
    for member in members:
        member.open(corpus.data_sha, windows.sha)
    models = [SharedModel([member]) for member in members]
    gradients = Gradients(runs, META, ALONE)
    with Progress("meta", 1) as progress:
        loop = Loop(
            stack=restored(models, corpus.vocab_size, META, ALONE),
            models=models,
            gradients=gradients,
            feed=Feed(Batches(corpus, runs[0].data.sequence_length, runs[0].batch_size), META),
            graph=False,
            evaluator=Evaluator(corpus, windows),
            recorder=Recorder(corpus, windows, gradients, SimpleNamespace(log=lambda *_: None)),
            progress=progress,
            processes=ALONE,
        )
        loop.restart()
        loop.update()
        with Watch(META):
            loop.update()


@pytest.mark.parametrize(
    "fmt", ["uint4", "ternary", "nvfp4-rht", *slow("int4", "e2m1", "nf4", "binary", "int4-hadamard", "int4-full")]
)
def test_quantizers_wait_for_nothing_but_their_formats(fmt):
    x = torch.empty(8, 32, device=META)
    rules = ["auto", "mse"]
    if not parse(fmt).zero_point:
        rules += ["pow2_floor", "pow2_even", "pow2_ceil_peak", "gaussian", "percentile90", "e4m3_single"]
    rules += ["e4m3_4over6"] if parse(fmt).max_value == 6 else []
    roundings = itertools.cycle(("nearest_even", "stochastic", "stochastic", "nearest_even"))
    for (rule, granularity), rounding in zip(
        itertools.product(rules, ("channel", "block4x16")), roundings, strict=False
    ):
        asked = {"granularity": granularity, "scale_rule": rule}
        fake_quantize(x, fmt, **asked, rounding=rounding)
        with Watch(META, known=None) as watch:
            assert fake_quantize(x, fmt, **asked, rounding=rounding).device == META
            assert rtn(x, fmt, **asked).device == META
        # Formats become tensors once for a stack; weights are looked through once for what is not finite.
        formats = {name for name in watch.offences if name.startswith("torch.tensor in scaling.quantization.")}
        assert set(watch.offences) - formats == {"Tensor.__int__ in scaling.ptq.layers.checked"}
        assert all(name.split(" in ")[1].split(".")[2] in ("rounding", "scales") for name in formats)


def test_an_evaluation_waits_for_nothing(make_run):
    run = make_run("precision=w4a4kv4")
    stack = Stack.start([run], vocab_size(run.data), [None], META)
    tokens = torch.empty(1, 4, run.data.sequence_length + 1, dtype=torch.int64, device=META)
    precision = StackPrecision.of([run.precision], META)
    with torch.no_grad(), Watch(META):
        losses(stack.weights, tokens[..., :-1], tokens[..., 1:], run.model, precision, EAGER)


@pytest.mark.parametrize(
    ("offence", "why"),
    [
        (lambda x: x.sum().item(), "Tensor.item"),
        (lambda x: x.tolist(), "Tensor.tolist"),
        (lambda x: bool(x.sum() > 0), "Tensor.__bool__"),
        (lambda x: float(x.sum()), "Tensor.__float__"),
        (lambda x: x * torch.tensor([2.0], device=META), "torch.tensor"),
        (lambda x: x * torch.as_tensor(2.0), "torch.as_tensor"),
        (lambda x: x.cpu(), "copy off the device"),
        (lambda x: torch.ones(3).to(META), "foreign output"),
        (lambda x: torch.bmm(x[None], torch.ones(1, 3, 3)), "foreign output"),
        (lambda x: x[[0, 1]], "indexing by a list"),
        (lambda x: x[x > 0], "a shape that values decide"),
        (lambda x: torch.nonzero(x), "a shape that values decide"),
        (lambda x: torch.equal(x, x), "torch.equal"),
        (lambda x: torch.from_numpy(__import__("numpy").ones(3)), "torch.from_numpy"),
    ],
)
def test_every_kind_of_waiting_is_refused(offence, why):
    x = torch.empty(3, 3, device=META)
    with pytest.raises(Refused, match=why), Watch(META):
        offence(x)


def test_a_matmul_of_two_devices_is_refused():
    x, other = torch.empty(1, 3, 3, device=META), torch.ones(1, 3, 3)
    torch.bmm(x, other)  # torch lets it pass
    with pytest.raises(Refused, match=r"mixed devices of aten\.bmm"), Watch(META):
        torch.bmm(x, other)


def test_waiting_in_a_backward_pass_is_refused():
    class Reads(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x * 2

        @staticmethod
        def backward(ctx, grad):
            return grad * 2 if grad.sum() > 0 else grad

    x = torch.empty(3, device=META, requires_grad=True)
    with pytest.raises(Refused, match="_local_scalar_dense"), Watch(META):
        Reads.apply(x).sum().backward()
