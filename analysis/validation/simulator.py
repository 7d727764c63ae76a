"""The simulator: what a table holds of a run whose laws are known. `coverage_designs` and `simulated_studies` use it.

Scatter is that of pilots. Gaps: a chain effect of 10% (runs of one N and seed, or of one trunk), a run effect of 8%, a
bit effect of 4%, evaluation windows of .02 sqrt(delta) nats. Losses: .5% between seeds, half of its variance from the
chain and half from the run (how it divides is assumed).

Random numbers are `normal(*names)`, a standard normal for what the names name: asked again it is the same.
"""

import dataclasses
from collections.abc import Callable, Iterable

import numpy as np

from analysis.laws.formulas import gap_rate, training_loss
from analysis.laws.kumar import PARTS, TABLE_2
from analysis.report.evidence.tables import COLUMNS

PLANTED_GAP = {"C_T": 0.6, "gamma_D": 0.5, "gamma_N": 0.35, "gamma_post": 0.6}  # .34 nats at 3 bits, N = 24k, D = 8M
PLANTED_LOSS = {"A": 17.0, "B": 575.0, "E": 0.8, "alpha": 0.35, "beta": 0.45}  # 1.75 nats there
RUN, BIT, WINDOW, CHAIN = 0.08, 0.04, 0.02, 0.10
SEEDS_OF_LOSS = 0.005
L2, L3, L4, L5, L6 = 23_552, 82_944, 200_704, 377_600, 663_552
SHAPES = {L2: (32, 2), L3: (48, 3), L4: (64, 4), L5: (80, 5), L6: (96, 6)}  # width and layers
M = 1e6
RATE, WEIGHT_DECAY, BATCH = 4e-3, 0.1, 2048
TAU = BATCH / (RATE * WEIGHT_DECAY)
USUAL = 8 * M  # tokens at which all slopes in ln D turn
FULL_WIDTHS = (16, 16, 16)
SATURATION = 1.5  # ln of the largest gap

Normal = Callable[..., float]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Truth:
    """What is planted: constants of the laws, and effects that they do not have."""

    gap: dict = dataclasses.field(default_factory=lambda: dict(PLANTED_GAP))
    """Constants of `kumar_ptq`."""
    loss: dict = dataclasses.field(default_factory=lambda: dict(PLANTED_LOSS))
    """Constants of `chinchilla`."""
    parts: dict = dataclasses.field(
        default_factory=lambda: {symbol: TABLE_2[symbol] for pair in PARTS.values() for symbol in pair}
    )
    """gamma and n of f(P) for weights, activations and KV cache."""
    C_w: float = 0.5
    """Robustness of `kumar_unified`."""
    blocks: float = 0.6
    """The gap with a scale a block over that with one a channel."""
    bend: float = 0.0
    """Curvature of ln delta in ln D."""
    kappa: float = 0.0
    """If not zero, ln delta goes with kappa times the logarithm of the format's error, not with bits."""
    methods: dict = dataclasses.field(default_factory=lambda: {"rtn": 0.0, "gptq": 0.0, "awq": 0.0})
    """What each quantizer adds to gamma_D."""
    cost_D: float = 0.0
    """Slope in ln D of the logarithm of what training in low precision costs."""
    interaction: float = 1.0
    """Factor on that cost where several parts are in low precision."""
    fine: float = 0.7
    """Factor on the cost of activations with a scale a token."""
    before: float = 0.48
    """Slope of ln delta in the tokens before a decay."""
    jump: float = 0.6
    """What a decay adds to ln delta."""
    mean: float = 0.2
    """What a mean of weights along the trunk adds to ln delta."""
    memory: float = 0.0
    """Share of gamma_D by which ln delta falls in ln tau."""
    rate: float = 0.0
    """Slope of ln delta in the logarithm of the learning rate."""
    english: float = 0.5
    """gamma_D on English text."""
    bf16: float = 0.0
    """What training with bfloat16 matmuls adds to the loss, in nats."""
    noise: float = 1.0
    """Factor on all scatter."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Quantization:
    """One quantization after training. `group`: values that share a scale, 0: those of an output channel."""

    format: str
    bits: float
    granularity: str = "channel"
    group: float = 0.0
    ptq: str = "rtn"

    def error(self, width: int) -> float:
        """sigma2, about as it is for normal values."""
        step = 2.0 ** (self.bits - 1) - 1
        return float((0.6 + 0.23 * np.log2((self.group or width) / 8)) ** 2 / step**2 / 3)


INTS = tuple(Quantization(format=f"int{bits}", bits=bits) for bits in range(2, 9))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """One run, and after how many tokens it is evaluated."""

    study: str = ""
    N: int
    D: float
    """The horizon of its schedule in tokens."""
    tokens_seen: float
    seed: int
    widths: tuple[float, float, float] = FULL_WIDTHS
    """Bits of weights, activations and KV cache in training."""
    granularity: str = "tensor"
    """Of activations and KV cache."""
    schedule: str = "cosine"
    lr: float = RATE
    weight_decay: float = WEIGHT_DECAY
    batch_tokens: int = BATCH
    decay_tokens: float | None = None
    corpus: str = "python"
    dtype: str = "bfloat16"
    parent: str | None = None
    trunk: str | None = None
    suffix: str = ""
    """What else distinguishes the run from others."""
    log_gap: float = 0.0
    """Added to ln delta."""
    gap_factor: float = 1.0
    """By which the law lacks this run's gaps."""
    excess_factor: float = 1.0
    """By which the law lacks this run's loss above E."""

    @property
    def base_id(self) -> str:
        """Of the run that is the same but for its precision."""
        return (
            f"n{self.N}-d{self.D:.0f}-{self.schedule}-r{self.lr:g}-wd{self.weight_decay:g}-b{self.batch_tokens}-"
            f"{self.corpus}-{self.dtype}-s{self.seed}{self.suffix}"
        )

    @property
    def full(self) -> bool:
        return tuple(self.widths) == FULL_WIDTHS

    @property
    def run_id(self) -> str:
        return self.base_id + ("" if self.full else "-w{:g}a{:g}kv{:g}".format(*self.widths) + self.granularity)

    @property
    def trunk_id(self) -> str:
        return self.trunk or self.run_id

    @property
    def cluster(self) -> str:
        return f"n{self.N}-s{self.seed}"

    @property
    def shape(self) -> tuple[int, int]:
        """Width and layers."""
        return SHAPES.get(self.N, (48, 3))

    @property
    def tau(self) -> float | None:
        """Tokens over which weights are averaged, None without weight decay."""
        return self.batch_tokens / (self.lr * self.weight_decay) if self.weight_decay else None

    @property
    def P(self) -> dict[str, float]:
        return dict(zip(PARTS, self.widths, strict=True))


def rows(run: Run, truth: Truth, normal: Normal, quantizations: Iterable[Quantization] = INTS) -> list[dict]:
    """What a table holds of a run: a row for it as it was trained, and one for each quantization."""
    loss, cost = _loss(run, truth, normal)
    width, layers = run.shape
    embedding = 256 * width
    trained = dict.fromkeys(COLUMNS) | {
        "run_id": run.run_id,
        "base_run_id": run.base_id,
        "parent_id": run.parent,
        "trunk_id": run.trunk_id,
        "cluster": run.cluster,
        "study": run.study,
        "seed_init": run.seed,
        "seed_data": run.seed,
        "N": run.N,
        "N_emb": embedding,
        "d_model": width,
        "n_layers": layers,
        "D": run.D,
        "tokens_seen": run.tokens_seen,
        "unique_tokens": 160 * M,
        "corpus": run.corpus,
        "schedule": run.schedule,
        "lr_peak": run.lr,
        "lr_end": run.lr * {"constant": 1.0, "cosine": 0.1}.get(run.schedule, 0.0),
        "decay_tokens": run.decay_tokens,
        "batch_tokens": run.batch_tokens,
        "weight_decay": run.weight_decay,
        "tau": run.tau,
        **_precision(run),
        "loss": loss + truth.bf16 * (run.dtype == "bfloat16"),
        "loss_se": 0.01,
        "gap_qat": cost,
        "gap_qat_se": None if cost is None else 0.002,
        "bytes": 2 * (run.N + embedding),
        "diverged": False,
        "device": "simulated",
        "dtype": run.dtype,
        "commit": "planted",
        "seconds": 6 * run.N * run.D / 1e11,
    }
    return [trained, *(trained | _quantized(run, q, trained, truth, normal) for q in quantizations)]


def _precision(run: Run) -> dict:
    """Columns of the parts in training."""
    width, _ = run.shape
    columns = {}
    grains = ("channel", run.granularity, run.granularity)
    for part, bits, granularity in zip(("w", "a", "kv"), run.widths, grains, strict=True):
        group = {"channel": width, "token": width}.get(granularity, BATCH * width)
        error = Quantization(format="", bits=bits, group=group).error(width) if bits < 16 else 0.0
        columns |= {
            f"P_{part}": bits,
            f"format_{part}": f"int{bits:g}" if bits < 16 else "bf16",
            f"granularity_{part}": granularity,
            f"sigma2_{part}": error,
            f"group_{part}": group,
        }
    return columns


def _loss(run: Run, truth: Truth, normal: Normal) -> tuple[float, float | None]:
    """Loss, and what low precision costs of it."""
    N, D = run.N, run.tokens_seen
    scatter = (normal("chain", N, run.seed) + normal("loss", run.base_id, D)) / np.sqrt(2)
    excess = float(training_loss(truth.loss | {"E": 0.0}, N, D))
    full = (run.excess_factor * excess + truth.loss["E"]) * (1 + SEEDS_OF_LOSS * scatter)
    if run.full:
        return full, None
    law = truth.loss | truth.parts
    cost = float(training_loss(law, N, D, run.P) - training_loss(law, N, D)) * (D / USUAL) ** truth.cost_D
    cost *= truth.interaction if sum(bits < 16 for bits in run.widths) > 1 else 1.0
    cost *= truth.fine if run.granularity == "token" and run.widths[1] < 16 else 1.0
    cost = cost * (1 + 0.04 * normal("cost", run.run_id)) + 0.002 * normal("pair", run.run_id)
    return full + cost, cost


def _log_gap(run: Run, q: Quantization, truth: Truth) -> float:
    """ln delta without any scatter."""
    law = truth.gap | ({"gamma_D": truth.english} if run.corpus != "python" else {})
    rate = float(gap_rate(law if run.full else law | truth.parts | {"C_w": truth.C_w}, run.N, q.bits, run.P))
    if not rate > 0:
        return -np.inf
    centre = np.log(run.tokens_seen / USUAL)
    # All texts and methods have the same gap at the usual tokens.
    log = np.log(rate) + truth.gap["gamma_D"] * np.log(USUAL) + (law["gamma_D"] + truth.methods[q.ptq]) * centre
    log += truth.bend * centre**2 + truth.rate * np.log(run.lr / RATE)
    if truth.kappa:  # as the law has it at 4 bits and width 32
        four = Quantization(format="int4", bits=4).error(32)
        log += (q.bits - 4) / law["gamma_post"] + truth.kappa * np.log(q.error(run.shape[0]) / four)
    elif q.group:
        log += np.log(truth.blocks)
    return log - (truth.memory * law["gamma_D"] * np.log(run.tau / TAU) if run.tau else 0.0)


def _quantized(run: Run, q: Quantization, trained: dict, truth: Truth, normal: Normal) -> dict:
    """What a quantization changes in the row of the trained model."""
    exact = float(np.exp(min(_log_gap(run, q, truth) + run.log_gap, SATURATION)))
    evaluated, setting = (run.run_id, run.tokens_seen), (q.format, q.granularity, q.ptq)
    factor = run.gap_factor * (1 + CHAIN * normal("chain", run.trunk_id)) * (1 + RUN * normal("run", *evaluated))
    factor *= 1 + BIT * normal("bit", *evaluated, *setting)
    se = WINDOW * np.sqrt(exact)
    gap = exact * max(factor, 0.02) + se * normal("window", *evaluated, *setting)
    return {
        "ptq": q.ptq,
        "P_post": q.bits,
        "format_post": q.format,
        "granularity_post": q.granularity,
        "scale_rule": "absmax" if q.format.startswith(("int", "e")) else "scaled",
        "setting": "/".join(setting),
        "sigma2_post": q.error(run.shape[0]),
        "gap": gap,
        "gap_se": se,
        "loss": trained["loss"] + gap,
        "gap_qat": None,
        "gap_qat_se": None,
        "bytes": run.N * (q.bits + (16 / q.group if q.group else 0.0)) / 8 + 2 * trained["N_emb"],
    }
