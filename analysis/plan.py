"""Which model to train: the best N, D, training precision and format after training that budgets allow.

Every way to train and to serve gets its own best N and D; `choices` says how intervals are made. Budgets are ceilings.
Training is charged with 6/16 N D P operations, where P is 16 unless the loss law knows both weights and activations in
low precision; a model that is served as trained keeps its weights at the width that they had in training.
"""

import argparse
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from analysis.errors import InputError
from analysis.fit_command import aligned

if TYPE_CHECKING:  # these load numpy and scipy, which --help has no use for
    from analysis.choices import Choice, Drawn, Estimate
    from analysis.fitting import Fit

DRAWS = 500
FEWEST, MOST = 100, 100_000  # draws
LARGEST = 1e50  # of any budget: powers of larger numbers leave the range of floats
FULL = 16
SATURATED = 0.5  # nats of gap beyond which gaps no longer follow their law
SHOWN = 6  # alternatives that are printed
SETTLED = 1e-9  # relative width of intervals of what does not hang on any law
PARTS = {"P_w": "weights", "P_a": "activations", "P_kv": "KV cache"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """The answer. `alternatives` are all other choices, smallest loss first."""

    best: "Choice"
    alternatives: "list[Choice]"
    sixteen: "Choice | None"
    """Trained and served in 16 bits under the same budgets; None where they have no room for it."""
    trained: "Estimate"
    """Bits in training: those of the best choice, and the best ones over the draws."""
    served: "Estimate"
    """Bits of the served weights, likewise."""
    P_star: "Estimate | None"
    """The width, as a real number, that is jointly optimal with N and D (Eq. 7) where operations alone are limited and
    widths below 16 bits compared."""
    parts: tuple[str, ...]
    """The precision columns that `trained` speaks of."""
    laws: tuple[str, ...]
    """What was used: the law of the loss, then those of the gap."""
    left_out: dict[str, str]
    """What was not compared, and why."""
    warnings: list[str]
    sentence: str


def plan(
    fits: "Mapping[str, Fit]",
    *,
    flops: float | None = None,
    bytes: float | None = None,
    tokens: float | None = None,
    serve_tokens: float | None = None,
    post: Sequence[str] | None = None,
    widths: Sequence[float] | None = None,
    group: float | None = None,
    fixed_bytes: float = 0.0,
    draws: int = DRAWS,
    seed: int = 0,
) -> Plan:
    """The best model under ceilings on operations (of training, and of serving `serve_tokens`), bytes of the served
    model, and training tokens.

    `fits`: by law name. `post`: formats that the model may be served in, `bf16` for none; by default any width in
    training, and int3 to int8 after it if serving is limited. `widths`: bits in training. `group`: values that share a
    16-bit scale in what is served below 16 bits. `fixed_bytes`: of embeddings and all else that is never quantized.

    Raises:
        InputError: a value out of range, budgets that leave N or D without a limit, no law, or no room for any choice.
    """
    import numpy as np

    from analysis import choices as found
    from analysis.answers import LOW_LAWS, loss_law, parts_of
    from analysis.budgets import Budget
    from analysis.derived import best_bits

    asked = {"flops": flops, "bytes": bytes, "tokens": tokens, "serve_tokens": serve_tokens}
    _check(asked, widths=widths, post=post, group=group, fixed_bytes=fixed_bytes, draws=draws, seed=seed)
    limits = {name: float(value) for name, value in asked.items() if value is not None}
    law = loss_law(fits)
    parts = parts_of(law)
    if not parts and widths is not None and min(widths) < FULL:
        raise InputError(
            f"widths={min(widths):g}: no law for training below {FULL} bits among {', '.join(fits)}; fit one of "
            f"{', '.join(LOW_LAWS)}"
        )
    serving = bytes is not None or serve_tokens is not None
    gap_laws, missing = found.gap_laws(fits, parts, post if post is not None or serving else ())
    ways = found.ways_of(law, parts, post=post, widths=widths, group=group, serving=serving, gaps=gap_laws)
    low = any(way.trained < FULL for way in ways)
    if not low:
        missing.pop(found.BELOW, None)
        if parts and widths is None and post is None:
            missing[f"training below {FULL} bits"] = (
                f"it saves nothing here, for {law.law.name} knows {', '.join(parts)} only; name widths to see it"
            )
    if all(fit.draws is None for fit in (law, *gap_laws.values())):
        draws = 0
    loss, gaps = found.drawn(law, draws, seed), {low: found.drawn(fit, draws, seed) for low, fit in gap_laws.items()}
    made, first, impossible = found.compare(ways, Budget(**limits, fixed_bytes=fixed_bytes), loss, gaps, parts)
    left_out = {_title(way): reason for way, reason in impossible.items()} | missing
    if not made:
        told = ", ".join(f"{name}={value:g}" for name, value in limits.items())
        unfit = "no width in training is that of a format allowed, or above one with a law for what quantization adds"
        reasons = dict.fromkeys(
            impossible.values() if any(way.eligible for way in ways) else [unfit, *missing.values()]
        )
        raise InputError(f"{told}: nothing is possible ({'; '.join(reasons)})")
    best, sure = made[0], made[0].best_in == made[0].best_in

    def over_draws(name: str) -> "Estimate":
        values = np.array([getattr(c, name) for c in made])
        return found.Estimate.of(np.concatenate([values[:1], values[first]]), sure, reach=1.0)

    alone = low and set(limits) == {"flops"} and found.saves_operations(parts)
    used = [loss, *(gaps[key] for key in (False, True) if any(w.post and (w.trained < FULL) == key for w in ways))]
    answer = Plan(
        best=best,
        alternatives=[c for c in made[1:] if c.eligible],
        sixteen=next((c for c in made if c.trained >= FULL and c.post is None), None),
        trained=over_draws("trained"),
        served=over_draws("served"),
        P_star=found.Estimate.of(best_bits(loss.constants), loss.sure, loss.reach) if alone else None,
        parts=parts,
        laws=tuple(dict.fromkeys(each.fit.law.name for each in used)),
        left_out=left_out,
        warnings=_warnings(best, used, parts if low else ()),
        sentence="",
    )
    return dataclasses.replace(answer, sentence=_sentence(answer))


def _check(asked: dict, *, widths, post, group, fixed_bytes, draws, seed) -> None:
    for name, value in asked.items():
        if value is not None and not 0 < value <= LARGEST:
            raise InputError(f"{name}={value:g}: expected a number above zero, at most {LARGEST:g}")
    if asked["tokens"] is not None and asked["tokens"] < 1:
        raise InputError(f"tokens={asked['tokens']:g}: expected at least one")
    if group is not None and not 1 <= group < float("inf"):
        raise InputError(f"group={group:g}: expected how many values share a scale, at least 1")
    if not 0 <= fixed_bytes < float("inf"):
        raise InputError(f"fixed_bytes={fixed_bytes:g}: expected bytes, at least zero")
    if asked["bytes"] is not None and fixed_bytes >= asked["bytes"]:
        raise InputError(f"fixed_bytes={fixed_bytes:g}: expected less than bytes={asked['bytes']:g}")
    if draws and not FEWEST <= draws <= MOST:
        raise InputError(f"draws={draws}: expected 0 (no intervals) or {FEWEST} to {MOST}")
    if seed < 0:
        raise InputError(f"seed={seed}: expected a number of 0 or above")
    for name, values in (("widths", widths), ("formats", post)):
        if values is not None and not len(values):
            raise InputError(f"{name}: expected at least one")
    for bits in widths or ():
        if not 1 <= bits <= FULL:
            raise InputError(f"widths={bits:g}: expected 1 to {FULL} bits")
    if asked["flops"] is None and asked["bytes"] is None:
        raise InputError("nothing limits N: expected flops, or bytes with tokens")
    if asked["flops"] is None and asked["serve_tokens"] is not None:
        raise InputError(f"serve_tokens={asked['serve_tokens']:g}: counts against flops; expected flops with it")
    if asked["flops"] is None and asked["tokens"] is None:
        raise InputError(f"bytes={asked['bytes']:g}: nothing limits D; expected flops or tokens with it")


def _warnings(best: "Choice", used: "Sequence[Drawn]", parts: Sequence[str]) -> list[str]:
    from analysis.choices import saves_operations

    lines = list(best.outside)
    if best.gap.value > SATURATED:
        lines.append(f"a gap of {best.gap.value:.2g} nats: gaps above {SATURATED:g} no longer follow their law")
    if parts and not saves_operations(parts):
        lines.append(f"the loss law knows {', '.join(parts)} only: training is charged with {FULL} bits throughout")
    for law in used:
        fit = law.fit
        name = fit.law.name
        edges = [symbol for symbol, edge in fit.at_bound.items() if edge and symbol != "E"]
        if fit.params.get("E", 1.0) <= 0 or fit.at_bound.get("E"):
            lines.append(f"{name}: E is at zero, so losses beyond the rows fitted come out too low")
        elif "E" in fit.params and fit.interval("E")[0] <= 0:
            lines.append(f"{name}: E is not told apart from zero")
        if edges:
            lines.append(f"{name}: at a bound: {', '.join(edges)}")
        if fit.status in ("unidentified", "not_converged"):
            lines.append(f"{name}: the fit is {fit.status.replace('_', ' ')}")
        if fit.status == "published":
            lines.append(f"{name}: published constants without intervals")
        elif fit.draws is None:
            lines.append(f"{name}: fitted without intervals")
        elif not fit.bootstrap.trusted:
            lines.append(f"{name}: its intervals take runs as independent, do not trust their width")
    return lines


def _sentence(made: Plan) -> str:
    best = made.best
    text = (
        f"Train N = {_told(best.N)} parameters on D = {_told(best.D)} tokens in {_training(best, made.parts)} and "
        f"{_serving(best)}; expected loss {_told(best.loss, 4)} nats a token."
    )
    if best.critical:
        text += " Stop there even if the budget allows more: further tokens would harm the quantized model."
    if made.alternatives:
        other = made.alternatives[0]
        text += _against(f"Next best, {_training(other, made.parts)} and {_serving(other)}", other)
    if made.sixteen and made.sixteen not in (best, *made.alternatives[:1]):
        text += _against(
            f"With {FULL} bits throughout{'' if made.sixteen.eligible else ' (not allowed)'}", made.sixteen
        )
    return text


def _against(title: str, other: "Choice") -> str:
    doubt = ", not told apart" if other.excess.low <= 0 <= other.excess.high else ""
    excess, side = other.excess, "above"
    if excess.value < 0:
        excess, side = dataclasses.replace(excess, value=-excess.value, low=-excess.high, high=-excess.low), "below"
    return f" {title}: N = {_told(other.N)}, {_told(excess, 2)} nats {side} that{doubt}."


def _training(choice: "Choice", parts: Sequence[str]) -> str:
    if choice.trained >= FULL:
        return f"{FULL} bits"
    words = [PARTS[part] for part in parts]
    return f"{choice.trained:g} bits ({' and '.join(filter(None, [', '.join(words[:-1]), words[-1]]))})"


def _serving(choice: "Choice") -> str:
    return "serve it as trained" if choice.post is None else f"quantize it to {choice.post} afterwards"


def _title(way) -> str:
    return f"{way.trained:g} bits {'as trained' if way.post is None else f'to {way.post}'}"


def _told(made: "Estimate", digits: int = 3) -> str:
    """A number with its interval, if it has one and is not settled by the budgets alone."""
    settled = made.high - made.low <= SETTLED * abs(made.value)
    ends = "" if settled or made.low != made.low else f" [{made.low:.{digits}g}, {made.high:.{digits}g}]"
    return f"{made.value:.{digits}g}{ends}"


# ---- command line ----


def add_parser(commands) -> None:
    """Register `plan` with argparse's subparsers."""
    parser = commands.add_parser(
        "plan",
        help="the best model for a budget",
        description="The best N, D, training precision and format after training under ceilings on operations, bytes "
        "and tokens, with intervals, from FITS.json or from the `paper`'s constants.",
    )
    parser.add_argument("fits", metavar="FITS.json|paper")
    parser.add_argument("--flops", type=float, help="operations of training: 6 N D at 16 bits, less in proportion")
    parser.add_argument("--bytes", type=float, help="of the served model: N (P + scales) / 8, and --fixed-bytes")
    parser.add_argument("--tokens", type=float, help="most training tokens")
    parser.add_argument("--serve-tokens", type=float, metavar="T", help="--flops cover serving these too: 2 N T P / 16")
    parser.add_argument("--formats", metavar="A,B,...", help="to serve in, e.g. int3,int4,bf16 (bf16: none)")
    parser.add_argument("--widths", metavar="P,P,...", help="bits in training, e.g. 8,16; default: all from the lowest")
    parser.add_argument("--group", type=float, help="values that share a 16-bit scale below 16 bits")
    parser.add_argument("--fixed-bytes", type=float, default=0.0, help="of what is never quantized, e.g. embeddings")
    parser.add_argument("--draws", type=int, default=DRAWS, help=f"for intervals, default {DRAWS}; 0: none")
    parser.add_argument("--seed", type=int, default=0, help="of the draws")
    parser.set_defaults(run=run)


def run(chosen: argparse.Namespace) -> None:
    """Print the plan that the command line asks for."""
    from analysis import fits, predict

    names = ("flops", "bytes", "tokens", "serve_tokens", "group", "fixed_bytes", "draws", "seed")
    made = plan(
        predict.paper() if chosen.fits == "paper" else fits.read(Path(chosen.fits)).fits,
        post=_names("formats", chosen.formats),
        widths=None if chosen.widths is None else [predict.bits_of(text) for text in _names("widths", chosen.widths)],
        **{name: getattr(chosen, name) for name in names},
    )
    for line in report(made):
        print(line)


def _names(option: str, text: str | None) -> list[str] | None:
    """The entries of a list with commas."""
    if text is None:
        return None
    names = [name.strip() for name in text.split(",")]
    if not all(names):
        raise InputError(f"{option}={text!r}: an entry is empty; expected names with commas between, e.g. int3,int4")
    return names


def report(made: Plan) -> list[str]:
    """The plan as lines: the choices as a table, what bears on them, and the sentence last."""
    others = made.alternatives
    if len(others) > SHOWN:  # then of those that are quantized to one format only the best
        first = {c.post: c for c in reversed([made.best, *others]) if c.post}
        others = [c for c in others if c.post is None or c is first[c.post]][:SHOWN]
    shown = [made.best, *others]
    if made.sixteen and made.sixteen not in shown:
        shown.append(made.sixteen)
    table = [("trained", "served", "N", "D", "loss", "from quantization", "above the best", "bytes", "best in")]
    for c in shown:
        cells = [f"{c.trained:g}", c.post or "as trained", _told(c.N), _told(c.D), _told(c.loss, 4)]
        cells += [_told(c.gap, 2), _told(c.excess, 2), _told(c.bytes)]
        share = "" if c.best_in != c.best_in else f"{c.best_in:.0%}" if c.eligible else "not allowed"
        table.append((*cells, share + " *" * bool(c.outside)))
    lines = aligned(table)
    gap = made.laws[1:]
    if any(c.outside for c in shown):
        lines.append("* outside the rows that a law was fitted on")
    lines.append(f"laws: {made.laws[0]} for the loss" + f", {' and '.join(gap)} for quantization" * bool(gap))
    lines.append(f"bits in training: {_told(made.trained)}; bits of the served weights: {_told(made.served)}")
    if made.P_star is not None:
        lines.append(f"P* jointly optimal with N and D, at any budget: {_told(made.P_star)} bits")
    hidden = len(made.alternatives) - len(others)
    lines += [f"not shown: {hidden} more choices"] if hidden else []
    lines += [f"left out: {what}: {reason}" for what, reason in made.left_out.items()]
    return [*lines, *(f"warning: {line}" for line in made.warnings), made.sentence]
