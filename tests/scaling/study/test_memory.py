"""Predicted memory against tensors that are counted while they are there, and what follows from it: sizes of stacks."""

import dataclasses
import gc
import weakref

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from scaling.config.data import vocab_size
from scaling.data.shards import prepare
from scaling.model.quantizers import StackPrecision
from scaling.model.transformer import losses
from scaling.ptq.measure import Trained, measure
from scaling.ptq.settings import settings_of
from scaling.study import machine
from scaling.study.jobs import stacks
from scaling.study.machine import available, room
from scaling.study.memory import HEAP, in_a_step, memory, moments, most_models, when_measured
from scaling.study.passes import Shapes, block_pass, head_pass
from scaling.training.adamw import rates
from scaling.training.distributed import ALONE
from scaling.training.families import at_once, busy
from scaling.training.gradients import Gradients
from scaling.training.stack import Stack
from scaling.training.weight_average import WeightMean
from tests.conftest import REPOSITORY, slow

CPU = torch.device("cpu")
SIZES = (
    "data.corpus.alphabet=255",
    "data.corpus.document_tokens=1100",
    "data.sequence_length=128",
    "data.batch_tokens=2048",
    "data.tokens=4096",
)


class Alive(TorchDispatchMode):
    """Counts the bytes of all storages that are alive, each operation's results included, and keeps the peak: the same
    every time. Equal to what torch.profiler records of the allocator in eager mode."""

    def __init__(self):
        super().__init__()
        gc.collect()  # what earlier tests left is not collected, or kept, in the middle of this one
        self.now = self.peak = 0
        self.known = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in tree_iter(result):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                if storage._cdata not in self.known:
                    self.known.add(storage._cdata)
                    self.now += storage.nbytes()
                    weakref.finalize(storage, self._gone, storage._cdata, storage.nbytes())
        self.peak = max(self.peak, self.now)
        return result

    def _gone(self, key, size):
        self.known.discard(key)
        self.now -= size


@pytest.fixture
def runs_of(make_run):
    """runs_of(3, "precision=w4a4kv4") -> three runs that differ in their seeds."""

    def make(count, *overrides):
        run = make_run("model=24k", *SIZES, *overrides)
        return [dataclasses.replace(run, seed_init=seed, seed_data=seed) for seed in range(count)]

    return make


def peak_of_steps(runs):
    run, vocabulary = runs[0], vocab_size(runs[0].data)
    with Alive() as alive:
        stack = Stack.start(runs, vocabulary, [None] * len(runs), CPU)
        gradients = Gradients(runs, CPU, ALONE)
        means = [WeightMean(run) if run.schedule.kind == "average" else None for run in runs]
        for step in range(2):
            gradients(stack, torch.randint(vocabulary, (len(runs), run.batch_size, run.data.sequence_length + 1)))
            stack.optimizer.update(stack.weights, torch.from_numpy(rates(runs, [step] * len(runs), 1))[0])
            for m, mean in enumerate(means):
                if mean:
                    mean.add(mean.first + 1 + step, stack.member(m))
    return alive.peak


@pytest.mark.parametrize(
    "members, overrides",
    [
        (3, ("precision=w4a4kv4",)),
        (1, ("model=100k", "model.tied_head=false", "runtime.loss_tokens=256")),
        (
            2,
            (
                "model=664k",
                "data.batch_tokens=128",
                "schedule=average",
                "data.tokens=1280",
                "schedule.decay_tokens=256",
            ),
        ),
        *slow(
            (1, ()),
            (1, ("model=100k", "precision=quartet")),
            (2, ("runtime.dtype=bfloat16", "precision=w4a4kv4")),
            (1, ("model=100k", "precision=quest", "runtime.dtype=bfloat16")),
            (1, ("model=100k", "precision=mxfp4", "precision.rounding=stochastic")),
            (1, ("model=100k", "model.extra_norm=false", "precision=w4")),
            (1, ("model=100k", "runtime.micro_batch_tokens=512")),
            (1, ("model=201k", "runtime.checkpoint_activations=true")),
            (1, ("model=201k", "precision=w4a4kv4", "runtime.checkpoint_activations=true", "runtime.dtype=bfloat16")),
            (1, ("model=100k", "data.sequence_length=1024")),
            (1, ("model=664k", "data.batch_tokens=128", "data.tokens=512")),  # the weights are most of it
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_a_step_takes_what_was_predicted(runs_of, members, overrides):
    runs = runs_of(members, *overrides)
    predicted = [moment for moment in moments(runs, Shapes.of(runs, "cpu")) if moment.name in TRAINING]
    assert max(moment.of(members) for moment in predicted) == pytest.approx(peak_of_steps(runs), rel=0.01)


TRAINING = {"loss", "forward pass", "backward pass", "update"}


@pytest.mark.parametrize("ptq", ["gptq", *slow("none", "rtn", "awq")])
def test_measuring_takes_what_was_predicted(runs_of, ptq):
    (run,) = runs_of(1, "model=201k", f"ptq={ptq}", "ptq.formats=[int3,int4,int5,int6,int8]")
    corpus = prepare(run.data, machine.Path(run.runtime.cache), lambda line: None)
    windows = corpus.windows(run.data.eval_windows, run.data.sequence_length)
    with Alive() as alive:
        stack = Stack.start([run], corpus.vocab_size, [None], CPU)
        model = Trained(run=run, weights=stack.member(0), tokens_seen=4096, settings=settings_of(run))
        measure([model], corpus, windows)
    predicted = max(moment.of(1) for moment in when_measured(run, Shapes.of([run], "cpu")))
    assert predicted == pytest.approx(alive.peak, rel=0.12)


def test_a_gpu_keeps_what_was_predicted(runs_of, monkeypatch):
    """In float32, on tensors without values that take the path of a GPU. Its fused attention, which is not here, is one
    that keeps what FlashAttention does: its inputs, its output and a sum for each head and position."""

    class Fused(torch.autograd.Function):
        @staticmethod
        def forward(ctx, q, k, v):
            out = torch.empty_like(q)
            ctx.save_for_backward(q, k, v, out, q.new_empty(q.shape[:-1]))
            return out

    runs = runs_of(2, "precision=w4a4kv4")
    run, shapes = runs[0], Shapes.of(runs, "cuda")
    tokens = run.tokens_at_once
    block, head = block_pass(shapes, tokens, False), head_pass(shapes, tokens)
    predicted = run.model.n_layers * block.saved + head.saved + 16 * tokens
    monkeypatch.setattr(F, "scaled_dot_product_attention", lambda q, k, v, is_causal: Fused.apply(q, k, v))
    parameters = run.model.shapes(shapes.vocabulary)
    weights = {n: torch.empty(2, *shape, device="meta", requires_grad=True) for n, shape in parameters.items()}
    batch = torch.empty(2, run.batch_size, run.data.sequence_length + 1, device="meta", dtype=torch.int64)
    found = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        found[storage._cdata] = (storage.nbytes(), tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        losses(weights, batch[..., :-1], batch[..., 1:], run.model, StackPrecision.of([run.precision] * 2, "meta"))
    own = {w.untyped_storage()._cdata for w in weights.values()}
    measured = sum(size for key, (size, _) in found.items() if key not in own) / 2
    assert predicted == pytest.approx(measured, rel=0.01)


QUICK = ["w4a4kv4"]
PRESETS = {path.stem for path in (REPOSITORY / "configs" / "precision").glob("*.yaml")}


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("preset", [*QUICK, *slow(*sorted(PRESETS - set(QUICK)))])
def test_every_precision_is_counted(runs_of, preset, device):
    """However it is computed; a GPU is not needed to count what one takes, and its bfloat16 neither."""
    common = (f"precision={preset}", "ptq=none", f"runtime.device={device}", "runtime.dtype=bfloat16")
    kept, again = (
        memory(runs_of(1, "model=100k", *common, *more)).tensors
        for more in ((), ("runtime.checkpoint_activations=true", "runtime.loss_tokens=256"))
    )
    assert again < kept


def test_memory_is_proportional_to_the_models(runs_of):
    one, two = (memory(runs_of(count, "ptq=none")) for count in (1, 2))
    for count in (2, 4, 16):
        found = memory(runs_of(count, "ptq=none"))
        assert found.models == count and found.tensors == count * one.tensors
        assert found.total - one.total == pytest.approx((count - 1) * (two.total - one.total))
    assert one.tensors < two.total - one.total < HEAP * one.tensors


def test_memory_follows_its_causes(runs_of):
    def tensors(*overrides):
        return memory(runs_of(1, "model=800k", "ptq=none", *overrides)).tensors

    long = ("data.sequence_length=1024", "data.batch_tokens=8192", "data.tokens=8192")
    assert tensors("data.batch_tokens=4096") > 1.8 * tensors()
    assert tensors("precision=w4a4kv4") > tensors() > tensors("runtime.dtype=bfloat16")
    assert tensors(*long) > 4 * tensors(*long, "runtime.micro_batch_tokens=1024")
    assert tensors(*long) > 2 * tensors(*long, "runtime.checkpoint_activations=true")
    assert tensors() > tensors("runtime.compile=on")
    # No T x T on a GPU.
    on_gpu = [tensors(*long, "runtime.device=cuda", f"data.sequence_length={t}") for t in (128, 1024)]
    assert on_gpu[1] == pytest.approx(on_gpu[0], rel=0.01)


def test_runs_that_are_one_copy_count_once(make_run):
    family = [
        make_run("schedule=wsd", f"data.tokens={tokens}", "schedule.decay_tokens=512") for tokens in (2560, 3840, 5120)
    ]
    found = memory(family)
    assert found.models == at_once(busy(family)) == 2


# -- what fits -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("models", [1, 2, 3])
def test_a_stack_that_would_not_fit_is_split(runs_of, models, workers):
    runs = runs_of(8, "runtime.max_members=8")
    # Between what so many models take and what one more does, for each worker.
    between = memory(runs[:models]).total * 0.5 + memory(runs[: models + 1]).total * 0.5
    gb = between / (1 - machine.MARGIN) / 1e9 * workers
    there = [dataclasses.replace(r, runtime=dataclasses.replace(r.runtime, memory_gb=gb)) for r in runs]
    found = stacks(there, workers)
    assert sorted(r.seed_init for stack in found for r in stack) == list(range(8))
    assert max(map(len, found)) == models == most_models(there, room(there[0], workers))
    assert all(memory(stack).total <= room(there[0], workers) for stack in found)


def test_a_family_that_would_not_fit_is_split(make_run):
    """Three copies of one family at once, two of which fit."""
    common = ("data.batch_tokens=2048", "schedule.warmup_tokens=0", "ptq=none")
    runs = [
        make_run("schedule=constant", "data.tokens=81920", *common),
        make_run("schedule=wsd", "data.tokens=61440", "schedule.decay_tokens=20480", *common),
        make_run("schedule=wsd", "data.tokens=63488", "schedule.decay_tokens=22528", *common),
    ]
    assert len(stacks(runs, 1)) == 1 and memory(runs).models == 3
    gb = memory(runs).total / (1 - machine.MARGIN) / 1e9 - 1e-6
    there = [dataclasses.replace(r, runtime=dataclasses.replace(r.runtime, memory_gb=gb)) for r in runs]
    assert [memory(stack).models for stack in stacks(there, 1)] == [2, 1]


def test_runs_that_do_not_fit_at_all_are_trained_alone(runs_of):
    assert [len(stack) for stack in stacks(runs_of(3, "runtime.memory_gb=0.001"), 1)] == [1, 1, 1]


def test_memory_of_another_machine_is_no_part_of_a_run(make_run):
    one, other = make_run(), make_run("runtime.memory_gb=80")
    assert (one.run_id, one.stack_key) == (other.run_id, other.stack_key)


def test_memory_of_a_machine_that_is_unknown_limits_nothing(make_run, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    run = make_run("runtime.device=cuda")
    assert room(run, 2) is None
    assert room(make_run("runtime.device=cuda", "runtime.memory_gb=80"), 2) == pytest.approx(36e9)


def test_the_least_of_system_and_container_is_available(tmp_path, monkeypatch):
    meminfo, groups = tmp_path / "meminfo", tmp_path / "cgroup"
    monkeypatch.setattr(machine, "MEMINFO", meminfo)
    monkeypatch.setattr(machine, "CGROUP", groups)
    meminfo.write_text("MemTotal:  16000 kB\nMemAvailable:  8000 kB\n")
    assert available("cpu") == 8000 * 1024
    groups.mkdir()
    (groups / "memory.stat").write_text("anon 7\ninactive_file 1000\nactive_file 500\n")
    (groups / "memory.current").write_text("3000000\n")
    (groups / "memory.max").write_text("max\n")
    assert available("cpu") == 8000 * 1024
    (groups / "memory.max").write_text("5000000\n")
    assert available("cpu") == 5000000 - 3000000 + 1500
    (groups / "memory.max").write_text("2000000\n")
    assert available("cpu") == 0


def test_moments_of_a_step_have_nothing_that_does_not_grow(runs_of):
    runs = runs_of(2)
    assert all(moment.once == 0 for moment in in_a_step(runs[0], Shapes.of(runs, "cpu")))
