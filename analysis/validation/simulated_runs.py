"""Simulated worlds: what is true in them, and the rows that a run there leaves. `rehearsal` has the studies.

Scatter is that of `simulation`, and hangs on names alone: a run has the same luck in whatever table it appears.
"""

import dataclasses
import hashlib
from collections.abc import Iterable, Sequence
from statistics import NormalDist

import numpy as np

from analysis.laws.formulas import gap_rate, training_loss
from analysis.laws.kumar import PARTS, TABLE_2
from analysis.report.evidence.tables import COLUMNS
from analysis.validation.simulate import BIT, CHAIN, GAP, LOSS, RUN, SEEDS_OF_LOSS, WINDOW

L2, L3, L4, L5, L6 = 23_552, 82_944, 200_704, 377_600, 663_552
SHAPES = {L2: (32, 2), L3: (48, 3), L4: (64, 4), L5: (80, 5), L6: (96, 6)}  # width and layers
M = 1e6
RATE, DECAY, BATCH = 4e-3, 0.1, 2048
TAU = BATCH / (RATE * DECAY)
USUAL = 8 * M  # tokens at which all slopes in ln D turn
FULL = (16, 16, 16)
NORMAL = NormalDist()
HIGHEST = 1.5  # ln of the largest gap: gaps saturate


@dataclasses.dataclass(frozen=True, kw_only=True)
class World:
    """What is true. `gap`, `loss`: constants of the laws; `parts`: gamma and n of each part; `C_w`: the robustness;
    `blocks`: the gap in blocks over that per channel.

    `bend`: curvature of ln delta in ln D; `kappa`: if not zero, ln delta goes with that times the logarithm of the
    format's error, not with bits; `methods`: what each quantizer adds to gamma_D; `cost_D`: slope of ln cost in ln D;
    `interaction`: factor on the cost of several parts together; `fine`: factor on that of activations with a scale a
    token; `before`: slope in tokens before a decay; `jump`, `mean`: what a decay and a mean of the weights add to ln
    delta; `memory`: share of tau; `rate`: slope in the learning rate; `english`: gamma_D there; `bf16`: what it adds to
    the loss; `noise` scales all scatter.
    """

    gap: dict = dataclasses.field(default_factory=lambda: dict(GAP))
    loss: dict = dataclasses.field(default_factory=lambda: dict(LOSS))
    parts: dict = dataclasses.field(
        default_factory=lambda: {symbol: TABLE_2[symbol] for pair in PARTS.values() for symbol in pair}
    )
    C_w: float = 0.5
    blocks: float = 0.6
    bend: float = 0.0
    kappa: float = 0.0
    methods: dict = dataclasses.field(default_factory=lambda: {"rtn": 0.0, "gptq": 0.0, "awq": 0.0})
    cost_D: float = 0.0
    interaction: float = 1.0
    fine: float = 0.7
    before: float = 0.48
    jump: float = 0.6
    mean: float = 0.2
    memory: float = 0.0
    rate: float = 0.0
    english: float = 0.5
    bf16: float = 0.0
    noise: float = 1.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setting:
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


INTS = tuple(Setting(format=f"int{bits}", bits=bits) for bits in range(2, 9))


class Author:
    """Writes the rows of studies in one world."""

    def __init__(self, world: World, seed: int, *, plain: bool = False):
        self.world, self.seed, self.plain = world, seed, plain

    def luck(self, *names) -> float:
        """A standard normal that hangs on the names alone, times the noise."""
        told = "/".join(map(str, (self.seed, *names)))
        drawn = int.from_bytes(hashlib.blake2b(told.encode(), digest_size=6).digest(), "big")
        return self.world.noise * NORMAL.inv_cdf((drawn + 0.5) / 2**48)

    def rows(
        self,
        study: str,
        N: int,
        D: float,
        seed: int,
        *,
        seen: float | None = None,
        ptq: Iterable[Setting] = INTS,
        widths: Sequence[float] = FULL,
        grain: str = "tensor",
        schedule: str = "cosine",
        rate: float = RATE,
        decay: float = DECAY,
        batch: int = BATCH,
        parent: str | None = None,
        trunk: str | None = None,
        decay_tokens: float | None = None,
        corpus: str = "python",
        dtype: str = "bfloat16",
        effect: float = 0.0,
        name: str = "",
    ) -> list[dict]:
        """The rows of a run at one token count, `seen` or its end: one for each quantization. `effect`: added to
        ln delta; `name`: what else tells the run from others."""
        D, tokens = (float(int(value // batch) * batch) for value in (D, seen or D))
        told = f"n{N}-d{D:.0f}-{schedule}-r{rate:g}-wd{decay:g}-b{batch}-{corpus}-{dtype}-s{seed}{name}"
        base = told
        if tuple(widths) != FULL:
            told += "-w{:g}a{:g}kv{:g}".format(*widths) + grain
        width, layers = SHAPES.get(N, (48, 3))
        embedding = 256 * width
        loss, cost = self._loss(N, tokens, widths, grain, seed, told, base)
        here = dict.fromkeys(COLUMNS) | {
            "run_id": told,
            "base_run_id": base,
            "parent_id": parent,
            "trunk_id": trunk or told,
            "cluster": f"n{N}-s{seed}",
            "study": study,
            "seed_init": seed,
            "seed_data": seed,
            "N": N,
            "N_emb": embedding,
            "d_model": width,
            "n_layers": layers,
            "D": D,
            "tokens_seen": tokens,
            "unique_tokens": 160 * M,
            "corpus": corpus,
            "schedule": schedule,
            "lr_peak": rate,
            "lr_end": rate * {"constant": 1.0, "cosine": 0.1}.get(schedule, 0.0),
            "decay_tokens": decay_tokens,
            "batch_tokens": batch,
            "weight_decay": decay,
            "tau": batch / (rate * decay) if decay else None,
            **self._precision(widths, grain, width),
            "loss": loss + self.world.bf16 * (dtype == "bfloat16"),
            "loss_se": 0.01,
            "gap_qat": cost,
            "gap_qat_se": None if cost is None else 0.002,
            "bytes": 2 * (N + embedding),
            "diverged": False,
            "device": "simulated",
            "dtype": dtype,
            "commit": "planted",
            "seconds": 6 * N * D / 1e11,
        }
        return [here, *(here | self._quantized(s, here, widths, effect) for s in ptq)]

    def _precision(self, widths, grain: str, width: int) -> dict:
        found = {}
        for part, bits, own in zip(("w", "a", "kv"), widths, ("channel", grain, grain), strict=True):
            group = {"channel": width, "token": width}.get(own, BATCH * width)
            error = Setting(format="", bits=bits, group=group).error(width) if bits < 16 else 0.0
            found |= {
                f"P_{part}": bits,
                f"format_{part}": f"int{bits:g}" if bits < 16 else "bf16",
                f"granularity_{part}": own,
                f"sigma2_{part}": error,
                f"group_{part}": group,
            }
        return found

    def _loss(self, N, tokens, widths, grain, seed, told, base) -> tuple[float, float | None]:
        """Loss, and what low precision costs of it."""
        w = self.world
        P = dict(zip(("P_w", "P_a", "P_kv"), widths, strict=True))
        seen = SEEDS_OF_LOSS * (self.luck("chain", N, seed) + self.luck("loss", base, tokens)) / np.sqrt(2)
        full = float(training_loss(w.loss, N, tokens)) * (1 + seen)
        if tuple(widths) == FULL:
            return full, None
        law = w.loss | w.parts
        cost = float(training_loss(law, N, tokens, P) - training_loss(law, N, tokens)) * (tokens / USUAL) ** w.cost_D
        cost *= w.interaction if sum(bits < 16 for bits in widths) > 1 else 1.0
        cost *= w.fine if grain == "token" and widths[1] < 16 else 1.0
        cost = cost * (1 + 0.04 * self.luck("cost", told)) + 0.002 * self.luck("pair", told)
        return full + cost, cost

    def _log_gap(self, s: Setting, here: dict, widths) -> float:
        """ln delta without any scatter."""
        w, tokens = self.world, here["tokens_seen"]
        law = w.gap | ({"gamma_D": w.english} if here["corpus"] != "python" else {})
        full = tuple(widths) == FULL
        P = dict(zip(("P_w", "P_a", "P_kv"), widths, strict=True))
        rate = float(gap_rate(law if full else law | w.parts | {"C_w": w.C_w}, here["N"], s.bits, P))
        if not rate > 0:
            return -np.inf
        centre = np.log(tokens / USUAL)
        # All texts and methods have the same gap at the usual tokens.
        log = np.log(rate) + w.gap["gamma_D"] * np.log(USUAL) + (law["gamma_D"] + w.methods[s.ptq]) * centre
        log += w.bend * centre**2 + w.rate * np.log(here["lr_peak"] / RATE)
        if w.kappa:  # as the law has it at 4 bits and width 32
            four = Setting(format="int4", bits=4).error(32)
            log += (s.bits - 4) / law["gamma_post"] + w.kappa * np.log(s.error(here["d_model"]) / four)
        elif s.group:
            log += np.log(w.blocks)
        return log - (w.memory * law["gamma_D"] * np.log(here["tau"] / TAU) if here["tau"] else 0.0)

    def _quantized(self, s: Setting, here: dict, widths, effect: float) -> dict:
        exact = float(np.exp(min(self._log_gap(s, here, widths) + effect, HIGHEST)))
        told, which = (here["run_id"], here["tokens_seen"]), (s.format, s.granularity, s.ptq)
        factor = (1 + CHAIN * self.luck("chain", here["trunk_id"])) * (1 + RUN * self.luck("run", *told))
        factor *= 1 + BIT * self.luck("bit", *told, *which)
        se = WINDOW * np.sqrt(exact)
        found = exact * max(factor, 0.02) + se * self.luck("window", *told, *which)
        return {
            "ptq": s.ptq,
            "P_post": s.bits,
            "format_post": s.format,
            "granularity_post": s.granularity,
            "scale_rule": "absmax" if s.format.startswith(("int", "e")) else "scaled",
            "setting": "/".join(which),
            "sigma2_post": s.error(here["d_model"]),
            "gap": found,
            "gap_se": se,
            "loss": here["loss"] + found,
            "gap_qat": None,
            "gap_qat_se": None,
            "bytes": here["N"] * (s.bits + (16 / s.group if s.group else 0.0)) / 8 + 2 * here["N_emb"],
        }
