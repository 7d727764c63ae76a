"""The rows that a design is judged by: ln of the gap, against ln D, -ln N and -P, on which it is linear.

ln gap = c + gamma_D ln D - gamma_N ln N - P / gamma_post is `kumar_ptq`, taken logarithms of. Which rows of a table are
used (quantizer, granularity, bits, a condition) is a `Choice`: it costs no run and moves the answer, so that it is
stated with it.
"""

import dataclasses

import numpy as np
import pandas as pd

from analysis import filters, table
from analysis.errors import InputError

LEAST_SIZES = 2
MOST_ROWS = 3000  # covariances of rows are dense
INTEGERS = tuple(f"int{bits}" for bits in range(2, 9))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Choice:
    """Which rows of a table. `None`: as the table has them. `gap_below`: runs with a larger predicted gap are left out,
    in nats, predicted by the line through all others, so that no row is chosen by its own noise."""

    ptq: str | None = "rtn"
    granularity: str | None = "channel"
    bits: tuple[float, float] = (4.0, 5.0)
    filter: str | None = None
    gap_below: float | None = None

    @property
    def text(self) -> str:
        """In a few words."""
        parts = [self.ptq, self.granularity, "{:g} to {:g} bits".format(*self.bits)]
        parts.append(None if self.gap_below is None else f"predicted gap below {self.gap_below:g}")
        return ", ".join(part for part in [*parts, self.filter] if part)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rows:
    """Arrays (n,): ln of the gap, ln N, ln D, P, and the numbers of each row's run and trunk. `left_out`: rows by
    reason."""

    log_gap: np.ndarray
    log_N: np.ndarray
    log_D: np.ndarray
    P: np.ndarray
    run: np.ndarray
    trunk: np.ndarray
    left_out: dict[str, int]

    def __len__(self) -> int:
        return len(self.log_gap)

    @property
    def X(self) -> np.ndarray:
        """(n, 4): the columns of c, gamma_D, gamma_N and 1 / gamma_post."""
        return columns(self.log_N, self.log_D, self.P)

    @property
    def sizes(self) -> np.ndarray:
        """The distinct ln N, ascending."""
        return np.unique(self.log_N)

    @property
    def middle(self) -> tuple[float, float, float]:
        """ln N, ln D and P in the middle of what the rows span: where effects of size x ln D, and curvatures, are
        measured from."""
        return tuple(float((v.min() + v.max()) / 2) for v in (self.log_N, self.log_D, self.P))

    @property
    def widths(self) -> np.ndarray:
        """The distinct P, ascending."""
        return np.unique(self.P)

    def cells(self) -> list[tuple[float, float, int]]:
        """(ln N, ln D, runs) of each cell, by size and tokens."""
        each = pd.DataFrame({"N": self.log_N, "D": self.log_D, "run": self.run}).drop_duplicates("run")
        return [(float(n), float(d), int(count)) for (n, d), count in each.groupby(["N", "D"]).size().items()]


def columns(log_N: np.ndarray, log_D: np.ndarray, P: np.ndarray) -> np.ndarray:
    """The law's columns (n, 4), of arrays (n,)."""
    return np.stack([np.ones_like(log_D), log_D, -log_N, -P], axis=-1)


def rows_of(frame: pd.DataFrame, choice: Choice) -> Rows:
    """The rows of `frame` that `choice` names and that have a gap above zero.

    Raises:
        InputError: no gap column, a bad filter, or rows that are too few, too many or all of one size or one D.
    """
    for name in ("gap", "N", "D", "P_post"):
        if name not in frame:
            raise InputError(
                f"{name}: the table has no such column; designs are judged by gaps after quantization",
                detail=f"it has {', '.join(map(str, frame.columns))}",
            )
    kept = filters.filtered(frame, choice.filter)
    kept = kept[table.after_training(kept) & ~table.diverged(kept)]
    for column, value in (("ptq", choice.ptq), ("granularity_post", choice.granularity)):
        if value is not None and column in kept and kept[column].notna().any():
            kept = kept[kept[column] == value]
    if "format_post" in kept and kept["format_post"].isin(INTEGERS).any():
        kept = kept[kept["format_post"].isin(INTEGERS)]
    kept = kept[kept["P_post"].between(*choice.bits)]
    gap = pd.to_numeric(kept["gap"], errors="coerce").to_numpy(float)
    positive = np.isfinite(gap) & (gap > 0)
    left_out = {"a gap that is not above zero": int((~positive).sum())}
    kept, gap = kept[positive], gap[positive]
    if len(kept) < 1 or kept["N"].nunique() < LEAST_SIZES or kept["D"].nunique() < LEAST_SIZES:
        sizes, tokens = kept["N"].nunique(), kept["D"].nunique()
        raise InputError(
            f"{choice.text}: {len(kept)} rows of {sizes} sizes and {tokens} D; expected rows with gaps of two or more "
            "sizes and two or more D"
        )
    if len(kept) > MOST_ROWS:
        raise InputError(f"{choice.text}: {len(kept)} rows; expected at most {MOST_ROWS}, a --filter takes fewer")
    N, P = table.numbers(kept, "N", positive=True), table.numbers(kept, "P_post", positive=True)
    D = table.nominal_tokens(kept).astype(float)
    made = {"log_gap": np.log(gap), "log_N": np.log(N), "log_D": np.log(D), "P": P}
    names = ["run_id", "trunk_id"]
    made["run"] = _numbers_of(kept, names[0], pd.Series(np.arange(len(kept)), index=kept.index))
    made["trunk"] = _numbers_of(kept, names[1], pd.Series(made["run"], index=kept.index))
    if choice.gap_below is not None:
        line = np.linalg.lstsq(columns(made["log_N"], made["log_D"], P), made["log_gap"], rcond=None)[0]
        small = columns(made["log_N"], made["log_D"], P) @ line < np.log(choice.gap_below)
        left_out[f"predicted gap of {choice.gap_below:g} or more"] = int((~small).sum())
        made = {name: values[small] for name, values in made.items()}
        if len(np.unique(made["log_N"])) < LEAST_SIZES or len(np.unique(made["log_D"])) < LEAST_SIZES:
            raise InputError(f"{choice.text}: fewer than two sizes or two D are left")
    return Rows(**made, left_out={reason: count for reason, count in left_out.items() if count})


def _numbers_of(frame: pd.DataFrame, column: str, otherwise: pd.Series) -> np.ndarray:
    """Each row's number of its entry in `column`, or of `otherwise` where the table has none. A model that is evaluated
    on its way is another at each D."""
    if column not in frame or frame[column].isna().any():
        return otherwise.to_numpy()
    keys = [frame[column]]
    if column == "run_id" and "tokens_seen" in frame:
        keys.append(frame["tokens_seen"])
    return frame.groupby(keys, sort=False, dropna=False).ngroup().to_numpy()
