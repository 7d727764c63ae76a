"""A law is data: its variables, its parameters, and columns whose non-negative combination is the prediction.

Every law here is written as

    response = sum over k of  c_k * phi_k(theta, x),      c_k >= 0, phi_k > 0

with few nonlinear parameters theta (exponents, decay widths) and coefficients c_k that enter linearly. A law states
`ln phi_k` and its slopes in theta. Logarithms because powers of N and D under- and overflow long before their logs do,
and because a column can then be divided by its value at a reference point, which takes the strong correlation between
a coefficient and its exponent out of the fit without any word from the law.

Shapes: S parameter sets at once (starts or bootstrap draws), n rows. theta arrives as {symbol: (S, 1)}, x as
{column: (n,)}.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Literal

import numpy as np

from analysis.errors import InputError
from analysis.laws.variables import column

FULL_BITS = 16.0  # the width that the table gives to what is not quantized


@dataclasses.dataclass(frozen=True, kw_only=True)
class Parameter:
    """One constant of a law."""

    symbol: str
    unit: str
    linear: bool = False
    lower: float
    upper: float
    transform: Literal["identity", "log", "reciprocal"] = "identity"
    """The scale on which the parameter is nearly normal. Intervals are made on it; a nonlinear parameter is also
    fitted on it. A linear coefficient is fitted as it is, because it may be zero."""
    starts: tuple[float, ...] = ()
    """Values from which a nonlinear parameter is started; the grid is the product over parameters."""
    published: float | None = None
    part: str | None = None
    """The precision column that this parameter belongs to. Without low-precision rows there it is left out."""

    @property
    def fixed(self) -> bool:
        """Whether it has one value only, so that it takes no part in a fit."""
        return self.lower == self.upper

    def forward(self, value):
        """From natural units to the transformed scale."""
        if self.transform == "log":
            with np.errstate(divide="ignore"):
                return np.log(value)
        return 1.0 / np.asarray(value, float) if self.transform == "reciprocal" else np.asarray(value, float)

    def backward(self, moved):
        """From the transformed scale to natural units."""
        if self.transform == "log":
            return np.exp(moved)
        return 1.0 / np.asarray(moved, float) if self.transform == "reciprocal" else np.asarray(moved, float)

    def slope(self, value):
        """d natural / d transformed, at a natural value."""
        if self.transform == "log":
            return np.asarray(value, float)
        return -np.square(value) if self.transform == "reciprocal" else np.ones_like(value)

    def box(self) -> tuple[float, float]:
        """Bounds on the transformed scale, in ascending order."""
        if self.linear:
            return self.lower, self.upper
        ends = float(self.forward(self.lower)), float(self.forward(self.upper))
        return min(ends), max(ends)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Columns:
    """ln phi_k (S, n) by linear symbol k, and d ln phi_k / d theta_j (S, n) by (k, j); absent pairs are zero."""

    logs: dict[str, np.ndarray]
    slopes: dict[tuple[str, str], np.ndarray]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Law:
    """A scaling law for a loss (nats a token) or for the gap that quantization after training opens (nats)."""

    name: str
    equation: str
    source: str
    response: Literal["loss", "gap", "gap_qat"]
    """`gap`: what quantization after training adds. `gap_qat`: what training in low precision adds."""
    variables: tuple[str, ...]
    parameters: tuple[Parameter, ...]
    columns: Callable[[Mapping[str, np.ndarray], Mapping[str, np.ndarray]], Columns]
    distinct: Mapping[str, int]
    """How many different values of a column the parameters need to be identified."""
    quantized_training: bool = False
    """Whether it describes runs trained in low precision."""
    accounts: tuple[str, ...] = ("P_w", "P_a", "P_kv")
    """Of these, the parts whose low precision in training it describes; it does not describe runs with
    others in low precision."""
    held: Mapping[str, float] = dataclasses.field(default_factory=dict)
    """Precision columns that `without` has taken out, and the bits at which all runs of the law have them."""
    constants: Mapping[str, float] = dataclasses.field(default_factory=dict)
    """Parameters of the equation that are fixed, not fitted."""
    categories: tuple[str, ...] = ()
    """Values of the variable `scheme`, which `columns` gets as 1, 2, ... in this order."""
    for_schemes: Callable[[tuple[str, ...]], "Law"] | None = None
    """Makes the law for other schemes, the unquantized one first. What is changed in a law afterwards, `with_schemes`
    carries over."""

    @property
    def nonlinear(self) -> tuple[Parameter, ...]:
        return tuple(p for p in self.parameters if not p.linear)

    @property
    def linear(self) -> tuple[Parameter, ...]:
        return tuple(p for p in self.parameters if p.linear)

    @property
    def ordered(self) -> tuple[Parameter, ...]:
        """Nonlinear parameters, then linear ones: the order of every vector of parameters."""
        return self.nonlinear + self.linear

    @property
    def free(self) -> tuple[Parameter, ...]:
        """Parameters that are fitted, in the order of `ordered`."""
        return tuple(p for p in self.ordered if not p.fixed)

    @property
    def symbols(self) -> tuple[str, ...]:
        return tuple(p.symbol for p in self.ordered)

    @property
    def published(self) -> dict[str, float]:
        return {p.symbol: p.published for p in self.parameters if p.published is not None}

    def without(self, parts: Iterable[str] | Mapping[str, float]) -> "Law":
        """The law for a table in which these precision columns have one width throughout, 16 bits unless `parts` says
        which: their factor is constant and cannot be separated from the coefficient in front, so it is taken as one.
        The law does not describe runs at other widths (`held`)."""
        bits = dict(parts) if isinstance(parts, Mapping) else dict.fromkeys(parts, FULL_BITS)
        return dataclasses.replace(
            self,
            parameters=tuple(p for p in self.parameters if p.part not in bits),
            variables=tuple(v for v in self.variables if v not in bits),
            distinct={k: v for k, v in self.distinct.items() if k not in bits},
            held={**self.held, **bits},
        )

    def hold(self, values: Mapping[str, float]) -> "Law":
        """The law with these parameters fixed at these values. How many different values of a column the others need is
        not known: the fit finds out which are identified.

        Raises:
            InputError: it has no such parameter, a value is out of its range, or nothing is left to fit.
        """
        known = {p.symbol: p for p in self.parameters}
        for symbol, value in values.items():
            if symbol not in known:
                raise InputError(f"hold={symbol}: {self.name} has no such parameter; use one of {', '.join(known)}")
            p = known[symbol]
            if not p.lower <= value <= p.upper or not np.isfinite(value):
                raise InputError(f"hold={symbol}={value:g}: expected a value from {p.lower:g} to {p.upper:g}")
            start = () if p.linear else (float(value),)
            known[symbol] = dataclasses.replace(p, lower=float(value), upper=float(value), starts=start)
        distinct = {} if values else self.distinct
        made = dataclasses.replace(self, parameters=tuple(known.values()), distinct=distinct)
        if not made.free:
            raise InputError(f"hold: all parameters of {self.name} are held; expected at least one to fit")
        return made

    def with_schemes(self, schemes: tuple[str, ...]) -> "Law":
        """The law for these schemes, the unquantized one first: as `for_schemes` makes it, with all that was changed in
        this one since it was made for its own schemes.

        Raises:
            InputError: its columns were changed, and `for_schemes` makes others.
        """
        if (self.categories[:1], set(self.categories)) == (schemes[:1], set(schemes)):
            return self
        made, before = self.for_schemes(schemes), self.for_schemes(self.categories)
        if _source(self.columns) is not _source(made.columns):
            raise InputError(
                f"{self.name}: its columns were changed for the schemes {', '.join(self.categories)}, but the table "
                f"has {', '.join(schemes)}; make the change in what for_schemes returns, too"
            )
        mine, old = ({p.symbol: p for p in law.parameters} for law in (self, before))
        parameters = [mine.get(p.symbol, p) for p in made.parameters if p.symbol in mine or p.symbol not in old]
        added = [p for p in self.parameters if p.symbol not in old]
        return dataclasses.replace(
            self,
            parameters=(*parameters, *(p for p in added if p not in parameters)),
            columns=made.columns,
            categories=made.categories,
        )

    def inputs(self, frame: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The law's variables (n,) as floats: those of the table, and those that follow from its columns.

        Raises:
            InputError: a scheme that the law does not know.
        """
        return {v: column(frame, v, self.categories) for v in self.variables}

    def predict(self, params: Mapping[str, float], frame: Mapping[str, np.ndarray]) -> np.ndarray:
        """Predicted response (n,) in nats; NaN on rows where the law has no value (no effective parameters left).

        `frame` needs the law's variables as columns. Source: the law's `equation`.
        """
        return self.gradient(params, frame)[0]

    def each(self, params: Mapping[str, np.ndarray], x: Mapping[str, np.ndarray | float]) -> np.ndarray:
        """Predicted response with as many sets of parameters as rows, one for each: all broadcast together. Variables
        are as `inputs` gives them; NaN where the law has no value."""
        shape = np.broadcast_shapes(*(np.shape(v) for v in params.values()), *(np.shape(v) for v in x.values()))
        theta, rows = (
            {name: np.broadcast_to(np.asarray(v, float), shape).reshape(-1, 1) for name, v in given.items()}
            for given in (params, x)
        )
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            logs = self.columns({p.symbol: theta[p.symbol] for p in self.nonlinear}, rows).logs
            total = sum(theta[p.symbol] * np.exp(logs[p.symbol]) for p in self.linear)
        total = np.broadcast_to(total, (math.prod(shape), 1)).reshape(shape)
        return np.where(np.isfinite(total), total, np.nan)

    def gradient(self, params: Mapping[str, float], frame: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """The prediction (n,) and its slopes (n, P) in the transformed parameters, in the order of `ordered`."""
        x = self.inputs(frame)
        theta = {p.symbol: np.full((1, 1), float(params[p.symbol])) for p in self.nonlinear}
        columns = self.columns(theta, x)
        size, q = len(next(iter(x.values()))), len(self.nonlinear)
        total, slopes = np.zeros(size), np.zeros((size, len(self.parameters)))
        with np.errstate(over="ignore", invalid="ignore"):
            for k, p in enumerate(self.linear):
                column, value = np.exp(columns.logs[p.symbol][0]), float(params[p.symbol])
                total += value * column
                slopes[:, q + k] = column * p.slope(value)
                for j, r in enumerate(self.nonlinear):
                    if (p.symbol, r.symbol) in columns.slopes:
                        slope = float(r.slope(float(params[r.symbol])))
                        slopes[:, j] += value * column * columns.slopes[p.symbol, r.symbol][0] * slope
        feasible = np.isfinite(total)
        return np.where(feasible, total, np.nan), np.where(feasible[:, None], slopes, np.nan)


def _source(function: Callable) -> object:
    """What distinguishes functions that were made in different places, but not those made for other schemes."""
    while isinstance(function, functools.partial):
        function = function.func
    return getattr(function, "__code__", function)
