"""What is sent to W&B of a run, and under which names: one scalar a name, in the sections `train`, `val`, `ptq` and
`perf`, so that its tables sort by them and its charts take them as axes.

The run folder has other names, those of the tidy table; nothing is read back from W&B.
"""

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from scaling.config.from_dict import plain

if TYPE_CHECKING:
    from scaling.config.pretrained.measured_run import MeasuredRun
    from scaling.config.run import Run

TRAINING = {"loss_train": "train/loss", "grad_norm": "train/grad_norm", "lr": "train/lr"}
"""Names of the training curve in the run folder, and in W&B."""
USUAL = ("n=16384", "act_order=False", "damping=0.01", "clip=True", "grid=20")
"""What names of quantizations do not say: how methods calibrate that are not asked otherwise. It stays when defaults
change, or one name would mean two things."""
MEASURED = ("loss", "loss_se", "gap", "gap_se")
"""Of a quantization, in the table of runs; curves have no standard errors."""


def training(point: Mapping[str, float]) -> dict[str, float]:
    """A point of the training curve."""
    return {name: point[own] for own, name in TRAINING.items() if own in point}


def quantization(key: str) -> str:
    """The section of a quantization, from the key of its setting: `ptq/rtn/int4-channel`. It says what differs from
    the usual: the scale rule that is not the format's own, the formats of activations, and so on."""
    from scaling.quantization.spec import QuantSpec

    method, fmt, granularity, rule, *others = key.split("/")
    own = QuantSpec.of(fmt, granularity, rows=("channel",)).scale_rule
    unusual = (o.replace("=", "") for o in others if o not in USUAL)
    words = [fmt, granularity, *([] if rule == own else [rule]), *unusual]
    # In W&B a dot reaches into a group, and other signs keep it from sorting by a name.
    return f"ptq/{method}/" + re.sub(r"[^A-Za-z0-9_-]", "_", "-".join(words))


def quantizations(rows: Sequence[Mapping[str, Any]], names: Sequence[str] = ("loss", "gap")) -> dict[str, float]:
    """What was measured of the quantizations of one model."""
    return {f"{quantization(row['setting'])}/{name}": row[name] for row in rows for name in names}


def evaluation(loss: float, rows: Sequence[Mapping[str, Any]] = ()) -> dict[str, float]:
    """A model on the held-out windows, as it is and quantized."""
    return {"val/loss": loss, **quantizations(rows)}


def summary(
    result: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], last_point: Mapping[str, float] = MappingProxyType({})
) -> dict[str, Any]:
    """All that W&B's table of runs is to show of a finished run: whichever file of a run comes last replaces what was
    there before.

    Args:
        result: that of the run folder.
        rows: its quantizations, of which those of the last model count.
        last_point: that of its training curve.
    """
    values: dict[str, Any] = {"N": result["N"], "diverged": result["diverged"], "perf/seconds": result["seconds"]}
    values |= training(last_point)
    if result["D"]:
        values |= {"D": result["D"], "tokens_per_parameter": result["D"] / result["N"]}
    if "tokens_per_second" in result:
        values["perf/tokens_per_second"] = result["tokens_per_second"]
    for last in result["evaluations"][-1:]:
        of_last = [row for row in rows if row["tokens_seen"] == last["tokens_seen"]]
        values |= {"val/loss": last["loss"], "val/loss_se": last["loss_se"], **quantizations(of_last, MEASURED)}
    return values


def config(run: "Run | MeasuredRun", made: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a run, and what is worked out from them and charts are grouped by. `made` is what it was made
    with: commit and machine."""
    derived: dict[str, Any] = {"D": run.D}
    if hasattr(run, "N"):  # that of a model of others is known when it is loaded
        derived |= {"N": run.N, "tokens_per_parameter": run.D / run.N, "bits": run.bits}
    return {**plain(run), **derived, **made}
