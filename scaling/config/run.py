"""The typed schema of one run, its checks, and what is derived from it.

YAML under configs/ holds every default; these classes hold every meaning. `build_run` turns a plain dict (composed by
Hydra, or read from a run folder or a stack file) into a `Run`, whose checks have then passed.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Any

from scaling.config.batching import Batched, check_division, coupled_part
from scaling.config.data import DataConfig, vocab_size
from scaling.config.from_dict import Settings, build, plain
from scaling.config.limits import Count, FolderName, Seed
from scaling.config.model import ModelConfig
from scaling.config.optimizer import OptimizerConfig
from scaling.config.precision import GROUPS, KEYS, PARTS, Precision
from scaling.config.ptq import PTQConfig
from scaling.config.runtime import RuntimeConfig, resolve_device
from scaling.config.schedule import ScheduleConfig
from scaling.config.tracking import TrackingConfig
from scaling.errors import InputError, named
from scaling.quantization.formats import FULL, ROTATIONS, UNQUANTIZED
from scaling.quantization.skip import one_way

OF_A_COMMAND = ("seed", "sweeps", "stack", "optimized_metric")
"""What configs/train.yaml has, or may be given, beside a run."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class BranchConfig(Settings):
    """Start from another run's snapshot instead of from fresh weights."""

    parent: Annotated[str, FolderName()] | None
    """run_id of the run to branch from, in the same study; null: start fresh."""
    tokens: Count | None
    """Tokens seen at the parent's snapshot; the schedule goes on from there."""

    def __post_init__(self):
        super().__post_init__()
        if (self.parent is None) != (self.tokens is None):
            raise InputError("tokens: parent and tokens are given together, or neither")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run(Batched, Settings):
    """Everything about one run."""

    study: Annotated[str, FolderName()]
    """Folder of the run below `runtime.out`, and its group in W&B."""
    model: ModelConfig
    data: DataConfig
    optimizer: OptimizerConfig
    schedule: ScheduleConfig
    precision: Precision
    seed_init: Seed
    """Seed of the initial weights."""
    seed_data: Seed
    """Seed of the order of batches."""
    snapshots: tuple[Count, ...]
    """Token counts at which the model is saved, evaluated and quantized on the way; runs can branch from there."""
    branch: BranchConfig
    ptq: PTQConfig
    tracking: TrackingConfig
    runtime: RuntimeConfig

    def __post_init__(self):
        super().__post_init__()
        schedule = self.schedule
        used = schedule.warmup_tokens + (schedule.decay_tokens or 0)
        if used > self.data.tokens:
            parts = "warmup_tokens + decay_tokens" if schedule.decay_tokens else "warmup_tokens"
            raise InputError(f"schedule.{parts}={used}: longer than the run (data.tokens={self.data.tokens})")
        for i, tokens in enumerate(self.snapshots):
            if not self.first_step < self.step_at(tokens) <= self.steps:
                raise InputError(
                    f"snapshots[{i}]={tokens}: must lie between "
                    f"{(self.first_step + 1) * self.data.batch_tokens} and {self.D} tokens"
                )
        if schedule.kind == "average":
            self._check_average()
        check_division(self.data, self.tokens_at_once)
        self._check_widths()
        for key, patterns in (("precision.skip", self.precision.skip), ("ptq.skip", self.ptq.skip)):
            one_way(patterns, self.model.block_names, key)
        widest = max(self.model.d_model, self.model.width_ff)
        if self.ptq.calibrates and self.ptq.calibration_tokens < widest:
            raise InputError(
                f"ptq.calibration_tokens={self.ptq.calibration_tokens}: fewer than the {widest} inputs of the widest "
                f"matrix; use at least {widest}, better ten times as many"
            )
        if self.branch.parent and not 0 < self.first_step < self.steps:
            raise InputError(f"branch.tokens={self.branch.tokens}: must lie within the run (data.tokens={self.D})")

    def _check_average(self) -> None:
        tokens, batch = self.schedule.decay_tokens, self.data.batch_tokens
        if not 1 <= self.step_at(tokens) <= self.steps - self.first_step:
            raise InputError(
                f"schedule.decay_tokens={tokens}: an average needs at least one batch ({batch} tokens) and no more "
                f"than the run trains on ({self.D - self.first_step * batch})"
            )
        if any(self.step_at(at) == self.steps for at in self.snapshots):
            raise InputError(
                f"snapshots={list(self.snapshots)}: not at the end of an average, where the mean is evaluated"
            )

    def _check_widths(self) -> None:
        """Raise InputError where blocks or rotations do not fit the model."""
        d, f, tokens = self.model.d_model, self.model.width_ff, (self.tokens_at_once,)
        inputs, outputs, heads = {d, f}, {3 * d, d, 2 * f}, (self.model.head_dim,)
        widths = {
            "weights": inputs,
            "activations": inputs,
            "embedding": (d,),
            "head": (d,),
            "kv": heads,
            "queries": heads,
        }
        widths |= {"dx_gradients": outputs, "dx_weights": outputs, "dw_gradients": tokens, "dw_activations": tokens}
        heights = {"weights": {d, f}, "embedding": {vocab_size(self.data)}, "head": {vocab_size(self.data)}}
        quantized = [(f"precision.{part}", part, self.precision.spec(part)) for part in PARTS]
        along = [("precision.granularity_keys", self.precision.keys_by_channel, self.precision.spec(KEYS))]
        if self.ptq.methods:
            after = {"weights": self.ptq.weights()}
            after |= {part: self.ptq.inputs(part, self.precision) for part in ("activations", "kv")}
            after |= {part: self.ptq.table(part) for part in ("embedding", "head")}
            quantized += [(f"ptq.{key}", part, spec) for part, specs in after.items() for key, spec in specs]
            keys = [self.ptq.keys(kv, self.precision) for _, kv in self.ptq.inputs("kv", self.precision)]
            along += [("ptq.granularity_keys", by_channel, spec) for spec, by_channel in filter(None, keys)]
        for key, part, spec in quantized:
            if spec is not None and spec.format.quantizes:
                for width in sorted(widths[part]):
                    named(key, spec.padding, width)
                for height in sorted(heights.get(part, ())):
                    named(key, spec.row_padding, height)
        for key, by_channel, spec in along:
            if spec.format.quantizes:
                named(key, spec.padding, self.data.sequence_length if by_channel else self.model.head_dim)

    @property
    def steps(self) -> int:
        """Optimizer steps from fresh weights to the end, the parent's included."""
        return self.step_at(self.data.tokens)

    @property
    def D(self) -> int:
        """The run's horizon in tokens: whole steps only."""
        return self.steps * self.data.batch_tokens

    @property
    def first_step(self) -> int:
        """Steps already taken where the run starts: 0, or those of the snapshot it branches from."""
        return self.step_at(self.branch.tokens or 0)

    @property
    def batch_size(self) -> int:
        """B, sequences a step."""
        return self.data.batch_tokens // self.data.sequence_length

    @property
    def skip(self) -> tuple[str, ...]:
        """Block matrices that training leaves out of its quantization, in the one way to say it; none where matmuls are
        not quantized."""
        matmuls = ("weights", "activations", *GROUPS["backward"])
        if not any(self.precision.format(part).quantizes for part in matmuls):
            return ()
        return one_way(self.precision.skip, self.model.block_names, "precision.skip")

    @property
    def lr_peak(self) -> float:
        return self.optimizer.peak(self.model.d_model)

    @property
    def N(self) -> int:
        return self.model.n_nonembedding()

    @property
    def flops(self) -> float:
        """Training FLOPs, 6 N D for the tokens that this run itself trains on."""
        return 6.0 * self.N * (self.steps - self.first_step) * self.data.batch_tokens

    def step_at(self, tokens: int) -> int:
        return tokens // self.data.batch_tokens

    @property
    def evaluated_tokens(self) -> list[int]:
        """Token counts at which the model is evaluated: at its snapshots and at its end."""
        return [self.step_at(tokens) * self.data.batch_tokens for tokens in (*self.snapshots, self.D)]

    def identity(self) -> dict[str, Any]:
        """The resolved fields that could change the run's numbers; its hash is part of the run id."""
        fields = (
            "model",
            "data",
            "optimizer",
            "schedule",
            "precision",
            "seed_init",
            "seed_data",
            "snapshots",
            "branch",
        )
        named = {f: plain(getattr(self, f)) for f in fields}
        entries = {**named, "precision": self.precision.identity(), "dtype": self.runtime.dtype}
        if self.skip:
            entries["precision"]["skip"] = list(self.skip)
        if self.tokens_at_once < self.data.batch_tokens and coupled_part(self.precision):
            entries["micro_batch_tokens"] = self.tokens_at_once
        return entries

    @property
    def run_id(self) -> str:
        """A readable slug and the hash of the identity; the folder, the W&B id and the key in the table."""
        digest = hashlib.sha256(json.dumps(self.identity(), sort_keys=True).encode()).hexdigest()[:10]
        seeds = f"s{self.seed_init}" + (f".{self.seed_data}" if self.seed_data != self.seed_init else "")
        return f"n{short(self.N)}-d{short(self.data.tokens)}-{self.schedule.kind}-{self.bits}-{seeds}-{digest}"

    @property
    def bits(self) -> str:
        """Its training precision for names: w4a16kv16."""
        p = self.precision
        parts = {"w": "weights", "a": "activations", "kv": "kv"}
        parts |= {"g": "dx_gradients"} if p.format("dx_gradients").quantizes else {}
        return "".join(letter + _short_name(p.name(part)) for letter, part in parts.items())

    @property
    def base_run_id(self) -> str:
        """run_id of the unquantized run with the same everything else."""
        return dataclasses.replace(self, precision=self.precision.unquantized()).run_id

    @property
    def stack_key(self) -> str:
        """Runs with equal keys can be trained as one stack: what is left out is a tensor with a value for each."""
        data = {k: v for k, v in plain(self.data).items() if k not in ("tokens", "repeat")}
        o, r = self.optimizer, self.runtime
        program = [
            plain(self.model),
            data,
            self.precision.program(),
            o.beta1,
            o.beta2,
            o.epsilon,
            r.dtype,
            r.device,
            r.compile,
            r.cuda_graph,
            self.tokens_at_once,
            r.checkpoint_activations,
            r.loss_tokens,
        ]
        return json.dumps([self.study, program], sort_keys=True)


def build_run(values: Mapping[str, Any]) -> Run:
    """A checked `Run` from a resolved plain dict. What says nothing of a run is dropped, such as
    `seed`, a mere default of the two seeds.

    Raises:
        InputError: one line with the full key of the offending value.
    """
    if isinstance(values, Mapping):
        values = {k: v for k, v in values.items() if k not in OF_A_COMMAND}
    run = build(Run, values)
    return dataclasses.replace(run, runtime=resolved_runtime(run.runtime))


def resolved_runtime(runtime: RuntimeConfig) -> RuntimeConfig:
    """With the dtype that `auto` means, which is part of a run's identity."""
    if runtime.dtype != "auto":
        return runtime
    # A device that is named may be another machine's.
    device = runtime.device if runtime.device != "auto" else resolve_device("auto")
    return dataclasses.replace(runtime, dtype="bfloat16" if device == "cuda" else "float32")


def _short_name(name: str) -> str:
    """bf16 -> 16, int4 -> 4, e2m1-hadamard -> e2m1h, int4-full-rht -> 4fr: for names."""
    short = "16" if name == UNQUANTIZED else name.removeprefix("int")
    for end in (FULL, *ROTATIONS):
        short = short.replace(end, end[1])
    return short


def short(count: int) -> str:
    """23552 -> 24k, 1500000 -> 1.5M: two digits, for names."""
    for unit, size in (("T", 1e12), ("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= size * 0.9995:
            return f"{count / size:.2g}{unit}" if count < 99.5 * size else f"{count / size:.0f}{unit}"
    return str(count)
