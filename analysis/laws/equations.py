"""A law from its equation as text: `L = A*N**-alpha + B*D**-beta + E`.

Names of columns are variables, all others are parameters. Terms between plus signs become columns of the law. A
parameter that stands in the equation once, as a factor of its term, is that term's coefficient; where there is none,
the coefficient is held at one. What is left of a term is differentiated as it is evaluated, rule by rule. Nothing else
than arithmetic and the functions below exists in an equation.
"""

import ast
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from analysis.errors import InputError
from analysis.laws.law import Columns, Law, Parameter

VARIABLES = (
    *(
        "N",
        "D",
        "C",
        "P_w",
        "P_a",
        "P_kv",
        "P_post",
        "unique_tokens",
        "tokens_seen",
        "E_w",
        "M_w",
        "group_w",
        "group_a",
    ),
    *("group_post", "sigma2_w", "sigma2_a", "sigma2_kv", "sigma2_post", "d_model", "n_layers", "batch_tokens", "tau"),
    *("lr_peak", "weight_decay", "warmup_tokens", "decay_tokens", "N_total", "N_emb"),
)
RESPONSES = {"L": "loss", "loss": "loss", "gap": "gap", "delta": "gap", "delta_PTQ": "gap", "gap_qat": "gap_qat"}
RANGE = (1e-4, 1e4)  # of a parameter that nothing is said about: positive
STARTS = (0.1, 0.5, 2.0)
EXAMPLE = "expected an equation such as L = A*N**-alpha + B*D**-beta + E"
LONGEST = 2000  # characters


class Dual(NamedTuple):
    """A value and its slopes by symbol, arrays that broadcast together."""

    value: np.ndarray
    slopes: dict[str, np.ndarray]


def _chain(value, *parts) -> Dual:
    """What has this value and these slopes (d value / d part, part) in pieces of its own."""
    slopes: dict[str, np.ndarray] = {}
    for slope, part in parts:
        for symbol, inner in part.slopes.items():
            slopes[symbol] = slopes.get(symbol, 0.0) + slope * inner
    return Dual(value, slopes)


def _power(a: Dual, b: Dual) -> Dual:
    value = a.value**b.value
    by_exponent = value * np.log(np.where(a.value > 0, a.value, 1.0)) if b.slopes else 0.0
    return _chain(value, (b.value * a.value ** (b.value - 1) if a.slopes else 0.0, a), (by_exponent, b))


OPERATIONS = {
    ast.Add: lambda a, b: _chain(a.value + b.value, (1.0, a), (1.0, b)),
    ast.Sub: lambda a, b: _chain(a.value - b.value, (1.0, a), (-1.0, b)),
    ast.Mult: lambda a, b: _chain(a.value * b.value, (b.value, a), (a.value, b)),
    ast.Div: lambda a, b: _chain(a.value / b.value, (1 / b.value, a), (-a.value / b.value**2, b)),
    ast.Pow: _power,
}
FUNCTIONS = {
    "exp": lambda a: _chain(np.exp(a.value), (np.exp(a.value), a)),
    "log": lambda a: _chain(np.log(a.value), (1 / a.value, a)),
    "log2": lambda a: _chain(np.log2(a.value), (1 / (a.value * np.log(2)), a)),
    "sqrt": lambda a: _chain(np.sqrt(a.value), (0.5 / np.sqrt(a.value), a)),
    "tanh": lambda a: _chain(np.tanh(a.value), (1 - np.tanh(a.value) ** 2, a)),
}


def is_equation(text: str) -> bool:
    """Whether a name of a law is an equation."""
    return bool(re.search(r"[-+*/=(^ ]", text))


def law(
    equation: str,
    *,
    name: str | None = None,
    response: str = "loss",
    variables: Sequence[str] = (),
    bounds: Mapping[str, tuple[float, float]] | None = None,
    starts: Mapping[str, Sequence[float]] | None = None,
    units: Mapping[str, str] | None = None,
) -> Law:
    """The law of an `equation`, whose left side (L, loss, gap, gap_qat) says what of; without one, of `response`.

    `variables` are columns beside those of `VARIABLES`. Parameters are positive unless `bounds` say otherwise; of one
    inside a term `starts` are the values that it is started from.

    Raises:
        InputError: it is no such equation, or what is said about parameters does not fit it.
    """
    left, _, right = equation.replace("^", "**").rpartition("=")
    response = RESPONSES.get(left.strip(), left.strip()) if left.strip() else response
    if response not in RESPONSES.values():
        raise InputError(f"{equation}: {response} is nothing that laws are of; expected L, gap or gap_qat before =")
    tree = _parsed(right, equation)
    names = [node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and node.id not in FUNCTIONS]
    known = {*VARIABLES, *variables}
    counts = Counter(name for name in names if name not in known)
    used = tuple(name for name in dict.fromkeys(names) if name in known)
    terms = _terms(tree, counts, equation)
    given = {"bounds": bounds or {}, "starts": starts or {}, "units": units or {}}
    for what, values in given.items():
        if unknown := sorted(set(values) - set(counts)):
            raise InputError(f"{what}={unknown[0]}: no parameter of {equation}; it has {', '.join(counts)}")
    if not used or not counts:
        raise InputError(f"{equation}: has no {'parameter' if used else 'column'}; {EXAMPLE}")
    linear = set(terms)
    parts = tuple(name for name in used if name in ("P_w", "P_a", "P_kv"))
    inner = [_nonlinear(symbol, **given) for symbol in counts if symbol not in linear]
    return Law(
        name=name or "".join(equation.split()),
        equation=" ".join(equation.split()),
        source="given as an equation",
        response=response,
        variables=used,
        parameters=(*inner, *(_coefficient(symbol, symbol in counts, **given) for symbol in terms)),
        columns=_columns(terms),
        distinct=dict.fromkeys(used, 2),
        quantized_training=bool(parts) or any(name in used for name in ("sigma2_w", "E_w", "M_w")),
        accounts=parts or ("P_w",),
    )


def _parsed(text: str, equation: str) -> ast.expr:
    try:
        if len(text) > LONGEST:
            raise ValueError(f"{len(text)} characters, more than {LONGEST}")
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError) as fault:
        raise InputError(f"{equation}: cannot be read ({getattr(fault, 'msg', fault)}); {EXAMPLE}") from None
    for node in ast.walk(tree):
        match node:
            case ast.BinOp() if type(node.op) in OPERATIONS:
                continue
            case ast.UnaryOp(op=ast.USub() | ast.UAdd()) | ast.Name() | ast.operator() | ast.unaryop() | ast.Load():
                continue
            case ast.Constant(value=int() | float()) if not isinstance(node.value, bool):
                continue
            case ast.Call(func=ast.Name(id=name), args=[_], keywords=[]) if name in FUNCTIONS:
                continue
        allowed = f"names, numbers, + - * / **, {', '.join(FUNCTIONS)}"
        raise InputError(f"{equation}: {ast.unparse(node)} is not part of an equation, which has {allowed}")
    return tree


def _terms(tree: ast.expr, counts: Counter, equation: str) -> dict[str, ast.expr | None]:
    """Coefficient -> what it multiplies (None: one). A term without a coefficient gets one that is called `one`."""
    coefficients: dict[str, ast.expr | None] = {}
    for term in _sum(tree, equation):
        factors = list(_product(term))
        own = next((f for f, over in factors if isinstance(f, ast.Name) and not over and counts[f.id] == 1), None)
        symbol = own.id if own else f"one{'' if 'one' not in coefficients else f'_{len(coefficients)}'}"
        coefficients[symbol] = _without(term, own) if own else term
    return coefficients


def _sum(node: ast.expr, equation: str):
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        yield from _sum(node.left, equation)
        yield from _sum(node.right, equation)
    elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Sub):
        raise InputError(f"{equation}: terms have to be added, and each of them positive; {EXAMPLE}")
    else:
        yield node


def _product(node: ast.expr, over: bool = False):
    """The factors of a term, and which of them it is divided by."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult | ast.Div):
        yield from _product(node.left, over)
        yield from _product(node.right, over != isinstance(node.op, ast.Div))
    else:
        yield node, over


def _without(node: ast.expr, factor: ast.expr) -> ast.expr | None:
    """A term without one of its factors; None where nothing is left."""
    if node is factor:
        return None
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult | ast.Div):
        left, right = _without(node.left, factor), _without(node.right, factor)
        if left is None and isinstance(node.op, ast.Div):
            left = ast.Constant(value=1.0)
        return right if left is None else left if right is None else ast.BinOp(left=left, op=node.op, right=right)
    return node


def _evaluated(node: ast.expr, known: Mapping[str, Dual]) -> Dual:
    match node:
        case ast.Constant():
            return Dual(np.float64(node.value), {})
        case ast.Name():
            return known[node.id]
        case ast.UnaryOp():
            inner, sign = _evaluated(node.operand, known), -1.0 if isinstance(node.op, ast.USub) else 1.0
            return _chain(sign * inner.value, (sign, inner))
        case ast.Call():
            return FUNCTIONS[node.func.id](_evaluated(node.args[0], known))
    return OPERATIONS[type(node.op)](_evaluated(node.left, known), _evaluated(node.right, known))


def _columns(terms: Mapping[str, ast.expr | None]):
    def columns(theta, x) -> Columns:
        known = {name: Dual(np.asarray(values, float), {}) for name, values in x.items()}
        known |= {symbol: Dual(values, {symbol: np.ones_like(values)}) for symbol, values in theta.items()}
        like = sum((values for values in theta.values()), np.zeros((1, 1))) + next(iter(x.values()))
        logs, slopes = {}, {}
        with np.errstate(all="ignore"):
            for symbol, term in terms.items():
                made = Dual(np.float64(1.0), {}) if term is None else _evaluated(term, known)
                value = np.where(made.value > 0, made.value, np.nan) + 0.0 * like
                logs[symbol] = np.where(np.isnan(value), np.inf, np.log(value))  # a term that is not positive: no value
                slopes |= {
                    (symbol, name): np.nan_to_num(slope / value + 0.0 * like) for name, slope in made.slopes.items()
                }
        return Columns(logs=logs, slopes=slopes)

    return columns


def _nonlinear(symbol: str, bounds: Mapping, starts: Mapping, units: Mapping) -> Parameter:
    low, high = map(float, bounds.get(symbol, RANGE))
    if not low < high or not np.isfinite([low, high]).all():
        raise InputError(f"bounds={symbol}: {low:g} to {high:g}; expected two finite numbers, the lower first")
    log = low > 0
    if symbol in starts:
        chosen = tuple(float(value) for value in np.atleast_1d(starts[symbol]))
    elif symbol not in bounds:
        chosen = STARTS
    else:
        ends = np.log([low, high]) if log else np.array([low, high])
        inside = ends[0] + np.array([0.2, 0.5, 0.8]) * (ends[1] - ends[0])
        chosen = tuple(map(float, np.exp(inside) if log else inside))
    if not chosen or not all(low <= value <= high for value in chosen):
        raise InputError(f"starts={symbol}: {', '.join(f'{v:g}' for v in chosen)}; expected {low:g} to {high:g}")
    transform = "log" if log else "identity"
    return Parameter(
        symbol=symbol, unit=units.get(symbol, "1"), lower=low, upper=high, transform=transform, starts=chosen
    )


def _coefficient(symbol: str, named: bool, bounds: Mapping, starts: Mapping, units: Mapping) -> Parameter:
    low, high = map(float, bounds.get(symbol, (0.0, np.inf))) if named else (1.0, 1.0)
    if not 0 <= low <= high:
        raise InputError(f"bounds={symbol}: {low:g} to {high:g}; expected numbers of zero or more, the lower first")
    transform = "identity" if symbol == "E" else "log"
    unit = units.get(symbol, "nats" if symbol == "E" else "1")
    return Parameter(symbol=symbol, unit=unit, linear=True, lower=low, upper=high, transform=transform)
