"""Which rows of a table a law is fitted on, and why the others are not.

Nothing is left out in silence: every reason is counted, and what a reader may not expect is a warning. A loss law takes
the end of each run, without quantization after training; a gap law takes the quantized rows of one quantizer at one
granularity, at 3 to 6 bits unless asked otherwise (below that the gap saturates, above it drowns in noise).
"""

import dataclasses
from collections.abc import Mapping

import numpy as np
import pandas as pd

from analysis import filters, table
from analysis.errors import InputError
from analysis.laws.kumar import PARTS
from analysis.laws.law import FULL_BITS, Law
from analysis.laws.schemes import base_of
from analysis.laws.variables import FORMATS_IN_TRAINING, with_derived
from analysis.reading import doubts

# What a gap law holds fixed: method, granularity, scale rule, family of formats, and the options of the method.
AFTER = ("ptq", "granularity_post", "scale_rule", "family")
SWITCHES = ("act_order", "clip")
OPTIONS = (
    *("format_post_a", "granularity_post_a", "scale_rule_post_a", "format_post_kv", "granularity_post_kv"),
    *("granularity_post_keys", "scale_rule_post_kv", "format_post_emb", "format_post_head", "skip_post"),
    "calib_tokens",
)
DURING = ("format_w", "format_a", "format_kv", "scale_rule_w", "estimator", "rounding")
MAY_BE_ZERO = ("sigma2_w", "sigma2_a", "M_w")
PLAINEST = "rtn channel "  # of equally frequent ways to quantize, the one that all studies have in common
SHOWN = 8  # names in a message
RECIPE = ("corpus", "schedule", "weight_decay", "batch_tokens", "eval_sha")  # what a law silently averages over


@dataclasses.dataclass(frozen=True, kw_only=True)
class Selection:
    """The law without parts that the table never varies, its rows, and the account of the others."""

    law: Law
    frame: pd.DataFrame
    left_out: dict[str, int]
    warnings: list[str]


class _Sieve:
    """Narrows a table step by step and keeps the account."""

    def __init__(self, frame: pd.DataFrame):
        self.frame = frame
        self.left_out: dict[str, int] = {}
        self.warnings: list[str] = []

    def keep(self, mask: np.ndarray, reason: str) -> None:
        if not mask.all():
            self.left_out[reason] = self.left_out.get(reason, 0) + int((~mask).sum())
            self.frame = self.frame[mask]


def select(
    law: Law,
    frame: pd.DataFrame,
    *,
    bits: tuple[float, float],
    base: str | None = None,
    weights: str | None = None,
    hold: Mapping[str, float] | None = None,
) -> Selection:
    """The rows of `frame` that `law` is fitted on; a gap law takes widths from bits[0] to bits[1]. `base` is the scheme
    of runs that are not quantized, `weights` a column of weights above zero, `hold` what is not fitted.

    Raises:
        InputError: a needed column is missing or not finite, too few rows, or too few different values to
            identify the law's parameters.
    """
    applicable = _applicable_rows(law, frame, narrow=True, base=base)
    law, sieve = applicable.law.hold(hold or {}), _Sieve(applicable.frame)
    if law.response == "gap" and law.quantized_training:
        _more_bits_in_training(law, sieve)
    if law.response == "gap" and len(sieve.frame):
        width = table.numbers(sieve.frame, "P_post", positive=True)
        sieve.keep((width >= bits[0]) & (width <= bits[1]), f"P_post outside {bits[0]:g} to {bits[1]:g} bits")
    if weights is not None:
        sieve.keep(table.numbers(sieve.frame, weights) != 0, f"{weights} is zero")
        table.numbers(sieve.frame, weights, positive=True)
    left_out = applicable.left_out | sieve.left_out
    enough(law, sieve.frame, left_out=sum(left_out.values()))
    known = [*law.variables, law.response, *table.TYPES, *([weights] if weights else [])]
    warnings = [*applicable.warnings, *doubts.lines(sieve.frame, law.name, law.variables, law.response, known)]
    varied = [c for c in RECIPE if c in sieve.frame and sieve.frame[c].nunique() > 1]
    if varied:
        warnings.append(f"runs differ in {', '.join(varied)}, which the law does not know; narrow with --filter")
    return Selection(law=law, frame=sieve.frame, left_out=left_out, warnings=warnings)


def applicable_rows(law: Law, frame: pd.DataFrame, *, one_way: bool = True) -> Selection:
    """All rows of `frame` that `law` describes, whether or not they are enough to fit it, and the law without what they
    do not identify; with a part in training in more than one way (`ways_in_training`) unless `one_way`. The rows that a
    fit is about are `rows_of` it.

    Raises:
        InputError: N, D or a precision column is missing or not finite.
    """
    return _applicable_rows(law, frame, narrow=True, one_way=one_way)


def rows_of(law: Law, expression: str | None, frame: pd.DataFrame) -> Selection:
    """All rows of `frame` that a fit describes, given its law and its filter: they pass the filter, the law as it was
    fitted describes them, and what that law has lost they have as all rows of the fit had it. Gap laws: at any bits
    after training, however large the gap.

    Raises:
        InputError: as `applicable_rows` and `filters.filtered`.
    """
    return _applicable_rows(law, filters.filtered(frame, expression), narrow=False)


def _applicable_rows(
    law: Law, frame: pd.DataFrame, *, narrow: bool, one_way: bool = True, base: str | None = None
) -> Selection:
    sieve = _Sieve(with_derived(frame, law.variables))
    sieve.keep(~table.diverged(frame), "diverged, or without a finite loss")
    _no_other_part(sieve)
    quantized = table.after_training(sieve.frame)
    if law.response == "gap":
        sieve.keep(quantized, "not quantized after training")
    else:
        sieve.keep(~quantized, "quantized after training")
    if law.response == "gap_qat" and "gap_qat" in sieve.frame:
        sieve.keep(sieve.frame["gap_qat"].notna().to_numpy(bool), "without a gap to an unquantized run")
    _ends_of_runs(sieve)
    if law.quantized_training:
        _trained_as_held(law, sieve)
        if one_way:
            _one_way_in_training(law, sieve)
        law = _without_constant_parts(law, sieve) if narrow else law
    else:
        _trained_in_full_precision(sieve, base)
    if law.response != "loss":
        held = AFTER if law.response == "gap" else DURING
        if "sigma2_post" in law.variables:  # covers formats, granularities and scale rules
            held = AFTER[:1]
        _one_setting(sieve, held, after=law.response == "gap")
    for name in ("E_w", "M_w"):
        if name in law.variables and name in sieve.frame:
            sieve.keep(sieve.frame[name].notna().to_numpy(bool), "weights in no float format")
    if narrow:
        law = _with_schemes(law, sieve.frame, base)
    elif law.categories and "scheme" in sieve.frame:
        known = sieve.frame["scheme"].astype(str).isin(law.categories).to_numpy(bool)
        sieve.keep(known, "trained in a scheme that the fit does not know")
    return Selection(law=law, frame=sieve.frame, left_out=sieve.left_out, warnings=sieve.warnings)


def _ends_of_runs(sieve: _Sieve) -> None:
    tokens = table.numbers(sieve.frame, "D", positive=True)
    if "tokens_seen" in sieve.frame:
        seen = pd.to_numeric(sieve.frame["tokens_seen"], errors="coerce").to_numpy(float)
        sieve.keep(np.isnan(seen) | (seen >= tokens), "evaluated before the end of the run")


def _no_other_part(sieve: _Sieve) -> None:
    """Embedding, head and gradients are in no law's equation; queries go with the keys."""
    for part in ("P_emb", "P_head", "P_g"):
        if part in sieve.frame:
            full = table.numbers(sieve.frame, part, positive=True) >= FULL_BITS
            sieve.keep(full, f"{part} below 16 bits")
    if {"P_q", "P_kv"} <= set(sieve.frame):
        queries, keys = (table.numbers(sieve.frame, part, positive=True) for part in ("P_q", "P_kv"))
        sieve.keep((queries >= FULL_BITS) | (queries == keys), "queries below 16 bits but not like the keys")


def _trained_in_full_precision(sieve: _Sieve, base: str | None) -> None:
    if "scheme" in sieve.frame and sieve.frame["scheme"].nunique() > 1:
        names = sieve.frame["scheme"].astype(str)
        if (base := base_of(names, base)) is not None:
            sieve.keep((names == base).to_numpy(bool), f"trained in another scheme than {base}")
    for part in PARTS:
        if part in sieve.frame:
            full = table.numbers(sieve.frame, part, positive=True) >= FULL_BITS
            sieve.keep(full, "trained in low precision")


def _trained_as_held(law: Law, sieve: _Sieve) -> None:
    """Parts that the law does not describe are in full precision, those that it has lost where it lost them."""
    for part in PARTS:
        if part in sieve.frame:
            width = table.numbers(sieve.frame, part, positive=True)
        else:
            width = np.full(len(sieve.frame), FULL_BITS)
        if part in law.held:
            sieve.keep(np.minimum(width, FULL_BITS) == law.held[part], f"{part} not at {law.held[part]:g} bits")
        elif part not in law.accounts:
            sieve.keep(width >= FULL_BITS, f"{part} below 16 bits")


def _one_way_in_training(law: Law, sieve: _Sieve) -> None:
    """Bits say little without the rest: of the rows with a part of the law in low precision, those that have it in the
    most frequent way are kept."""
    for part in (p for p in PARTS if p in law.variables and p in sieve.frame):
        ways = ways_in_training(sieve.frame, part, formats="M_w" not in law.variables)
        below = ways.notna()
        if below.any():
            chosen = _most_frequent(sieve, ways[below], f"{part} in training: ")
            sieve.keep((~below | (ways == chosen)).to_numpy(bool), f"{part} in training in another way")


def ways_in_training(rows: pd.DataFrame, part: str, *, formats: bool = True) -> pd.Series:
    """How each of the rows has a part in low precision: family of formats (if these are asked for) and granularity, and
    scale rule, estimator and rounding where these vary; NaN for rows that have it in 16 bits."""
    letter = part.removeprefix("P_")
    words = [pd.Series("", index=rows.index)]
    if formats and f"format_{letter}" in rows:
        words.append(family(rows[f"format_{letter}"]))
    grain, rest = f"granularity_{letter}", (f"scale_rule_{letter}", "estimator", "rounding", "skip")
    rest = (*rest, "granularity_keys") if letter == "kv" else rest
    columns = [c for c in (grain, *rest) if c in rows and (c == grain or rows[c].nunique(dropna=False) > 1)]
    words += [rows[c].fillna("").astype(str) for c in columns]
    return _joined(words).where(table.numbers(rows, part, positive=True) < FULL_BITS)


def _without_constant_parts(law: Law, sieve: _Sieve) -> Law:
    """Drop what the table cannot identify: constant parts from the law, parts with too few widths from law and rows."""
    constant, asked = {}, [part for part in PARTS if part in law.variables]
    owners = {p.part for p in law.parameters}
    for part in asked:
        if part not in sieve.frame:
            constant[part] = FULL_BITS
            continue
        width = table.numbers(sieve.frame, part, positive=True)
        count = len(np.unique(width))
        if 1 < count < law.distinct[part]:
            sieve.keep(width >= FULL_BITS, f"{part} below 16 bits")
            sieve.warnings.append(
                f"{part} has only {count} different widths, the law needs {law.distinct[part]}: rows below 16 bits are "
                "left out"
            )
        if count < law.distinct[part] and part not in owners and len(asked) > 1:
            raise InputError(f"{law.name}: {part} has {count} different widths, needs at least {law.distinct[part]}")
        if count < law.distinct[part]:
            constant[part] = float(width[0]) if count == 1 else FULL_BITS
    # Rows of one width determine what low precision adds too.
    one_width = law.response == "gap_qat" and all(bits < FULL_BITS for bits in constant.values())
    if asked and set(constant) == set(asked) and not (one_width and owners >= set(asked)):
        raise InputError(
            f"{law.name}: too few runs trained in low precision; expected at least {law.distinct[asked[0]]} different "
            f"widths in one of {', '.join(asked)}"
        )
    sieve.warnings += [
        f"{part} is {bits:g} bits in all rows: the law speaks of such models only"
        for part, bits in constant.items()
        if bits < FULL_BITS
    ]
    return law.without(constant)


def _more_bits_in_training(law: Law, sieve: _Sieve) -> None:
    """Eq. 9 of Kumar et al. assumes that training had more bits than are left: models whose weights were trained for
    fewer do lose something."""
    post = table.numbers(sieve.frame, "P_post", positive=True)
    for part in (p for p in PARTS if p in law.variables and p in sieve.frame):
        width = table.numbers(sieve.frame, part, positive=True)
        sieve.keep(width > post, f"{part} in training not above P_post")
        post = post[width > post]


def _with_schemes(law: Law, frame: pd.DataFrame, base: str | None) -> Law:
    """The law for the schemes of a table, distinguished by name; efficiencies are relative to the first."""
    if law.for_schemes is None or "scheme" not in frame or frame.empty:
        return law
    names = sorted(set(frame["scheme"].astype(str)))
    unquantized = base_of(names, base) if len(names) > 1 else names[0]
    if unquantized is None:
        listed = ", ".join(names[:SHOWN]) + ", ..." * (len(names) > SHOWN)
        raise InputError(
            f"{law.name}: which scheme is not quantized, of {listed}? say so by --base SCHEME, or call it bf16"
        )
    return law.with_schemes((unquantized, *(name for name in names if name != unquantized)))


def _one_setting(sieve: _Sieve, setting: tuple[str, ...], *, after: bool) -> None:
    """A gap law holds for one quantizer, granularity, scale rule and family of formats: keep the most frequent."""
    frame = sieve.frame
    if "format_post" in frame:
        frame = frame.assign(family=family(frame["format_post"]))
    words = [frame[c].fillna("").astype(str) for c in setting if c in frame]
    if after:
        words += [pd.Series(np.where(table.flags(frame, c), c, ""), index=frame.index) for c in SWITCHES if c in frame]
        words += [_named(frame[c]) for c in OPTIONS if c in frame]
    if not words or frame.empty:
        return
    names = _joined(words)
    sieve.keep((names == _most_frequent(sieve, names)).to_numpy(), "quantized in another way")


def family(formats: pd.Series) -> pd.Series:
    """Names of formats without their numbers: int4 -> int, e4m3 -> em."""
    return formats.fillna("").astype(str).str.replace(r"\d+", "", regex=True)


def _joined(words: list[pd.Series]) -> pd.Series:
    rows = zip(*words, strict=True)
    return pd.Series([" ".join(filter(None, row)) for row in rows], index=words[0].index, dtype=object)


def _most_frequent(sieve: _Sieve, names: pd.Series, what: str = "") -> str:
    """Of the names of rows, with a warning that begins with `what` where there are others."""
    counts = names.value_counts()
    chosen = min(counts.index, key=lambda name: (-counts[name], not name.startswith(PLAINEST), name))
    if len(counts) > 1:
        others = ", ".join(sorted(set(counts.index) - {chosen}))
        sieve.warnings.append(f"{what}fitted on {chosen} alone, not on {others}; choose with --filter")
    return chosen


def _named(values: pd.Series) -> pd.Series:
    """`column=value`, and nothing where there is no value."""

    def name(value: object) -> str:
        if pd.isna(value):
            return ""
        return f"{values.name}={value:.0f}" if isinstance(value, float) else f"{values.name}={value}"

    return values.map(name)


def enough(law: Law, frame: pd.DataFrame, *, left_out: int) -> None:
    """Raises InputError unless `frame` has the columns, the rows and the different values that `law` needs."""
    needed = {law.response: law.response == "loss"}
    needed |= {v: v not in MAY_BE_ZERO for v in law.variables if v != "scheme"}
    if "scheme" in law.variables and "scheme" not in frame:
        raise InputError(f"scheme: the table has no such column, and not all of {', '.join(FORMATS_IN_TRAINING)}")
    values = {column: table.numbers(frame, column, positive=positive) for column, positive in needed.items()}
    least = len(law.free) + 1
    if len(frame) < least:
        raise InputError(
            f"{law.name}: {len(frame)} usable rows for {len(law.free)} parameters, needs at least {least}"
            + (f" ({left_out} other rows do not belong to this law)" if left_out else "")
        )
    values["D"] = table.nominal_tokens(frame)
    for variable, wanted in law.distinct.items():
        count = frame[variable].nunique() if variable == "scheme" else len(np.unique(values[variable]))
        if count < wanted:
            plural = "s" if count > 1 else ""
            raise InputError(f"{law.name}: {variable} has {count} different value{plural}, needs at least {wanted}")
    if np.ptp(values[law.response]) == 0:
        raise InputError(f"{law.name}: {law.response} is {values[law.response][0]:g} in all rows; it determines no law")
