"""Filters: conditions on the columns of a table, such as `N > 1e5 and ptq == 'rtn'`, and nothing else.

They are written as for `DataFrame.query` of pandas and pick the same rows, but pandas evaluates any Python that it
finds in them. Here the expression is parsed, every piece is looked up in the lists below, and no attribute, no name
that is not a column and no call of anything else exists. Filters can therefore be read from files of others.

    columns, `columns with spaces`, numbers, inf, 'text', True, False
    + - * / // % **     on numbers, computed as float64
    < <= > >= == !=     also chained; an empty cell is unequal to everything, and neither less nor greater
    in, not in          a list: P_post in [3, 4]
    and or not & | ~    on conditions; & and | bind as weakly as `and` and `or`, as in pandas
    abs exp log log2 log10 sqrt isnull notnull
"""

import ast
import contextlib
import difflib
import math
import operator
import re
import warnings
from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np
import pandas as pd

from analysis.errors import InputError

LONGEST, DEEPEST = 10_000, 60  # characters; pieces within pieces
LISTED = 12  # columns in a message
SHOWN = 60  # characters of a filter, or of a piece of it, in a message
EXAMPLE = "expected a condition on columns, e.g. N > 1e5 and ptq == 'rtn'"
ARITHMETIC: dict[type, Callable] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}
COMPARISONS: dict[type, Callable] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}
FUNCTIONS: dict[str, Callable] = {
    "abs": np.abs,
    "exp": np.exp,
    "log": np.log,
    "log2": np.log2,
    "log10": np.log10,
    "sqrt": np.sqrt,
    "isnull": pd.isnull,
    "notnull": pd.notnull,
}
OF_ANYTHING = ("isnull", "notnull")  # the other functions are of numbers
_WORDS = re.compile(r"""'(?:[^'\\\n]|\\.)*'|"(?:[^"\\\n]|\\.)*"|`[^`\n]*`|&|\|""")
_WORDS_OF_PYTHON = {"&": " and ", "|": " or "}


def filtered(frame: pd.DataFrame, expression: str | None) -> pd.DataFrame:
    """The rows for which the expression holds; all of them if there is none.

    Raises:
        InputError: it is no filter, names no column, is not true or false for each row, or leaves no row.
    """
    if not expression:
        return frame
    try:
        mask = _Filter(frame).of(expression)
    except InputError as fault:
        raise InputError(f"filter {_short(repr(expression))}: {fault}") from None
    if not mask.any():
        raise InputError(f"filter {_short(repr(expression))}: leaves none of {len(frame)} rows")
    return frame[mask]


def computed(frame: pd.DataFrame, expression: str) -> pd.Series | float | str | bool:
    """What an expression is worth on each row: a column, or one number, text or truth for all of them.

    Raises:
        InputError: it is no such expression, or names no column.
    """
    made = _Filter(frame)
    with np.errstate(all="ignore"):
        return made.value(made.parsed(expression))


def no_such_column(frame: pd.DataFrame, name: str) -> str:
    """What to say of a name that is no column."""
    names = [str(column) for column in frame.columns]
    close = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {close[0]}?" if close else f"it has {', '.join(names[:LISTED])}"
    hint += ", ..." if not close and len(names) > LISTED else ""
    return f"the table has no such column; {hint}"


class _Filter:
    """Evaluates expressions on a table. What a piece is worth is a column (n,) or a single number, text or truth."""

    def __init__(self, frame: pd.DataFrame):
        self.frame, self.quoted = frame, {}

    def of(self, expression: str) -> pd.Series:
        """True or false for each row.

        Raises:
            InputError: the offending piece, and what is accepted.
        """
        with np.errstate(all="ignore"):
            mask = self.value(self.parsed(expression))
        if not isinstance(mask, pd.Series) or mask.dtype != bool:
            raise InputError("expected a condition that is true or false for each row")
        return mask

    def parsed(self, expression: str) -> ast.expr:
        if not isinstance(expression, str):
            raise InputError(EXAMPLE)
        if len(expression) > LONGEST:
            raise InputError(f"{len(expression)} characters; expected at most {LONGEST:,}")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of escapes in a text
                tree = ast.parse(_WORDS.sub(self._word, expression).strip(), mode="eval").body
        except (SyntaxError, ValueError, MemoryError, RecursionError) as fault:
            reason = fault.msg if isinstance(fault, SyntaxError) else "too deep, or not text"
            raise InputError(f"cannot be read ({reason}); {EXAMPLE}") from None
        # Not by recursion, which this is to keep within bounds.
        layer: list[ast.AST] = [tree]
        for _ in range(DEEPEST):
            layer = [below for node in layer for below in ast.iter_child_nodes(node)]
        if layer:
            raise InputError(f"nested more than {DEEPEST} deep; expected a simpler condition")
        return tree

    def _word(self, match: re.Match) -> str:
        """What stands for a piece that Python reads otherwise; texts stay as they are."""
        text = match[0]
        if text[0] != "`":
            return _WORDS_OF_PYTHON.get(text, text)
        name = f"__column_{len(self.quoted)}"
        self.quoted[name] = text[1:-1]
        return name

    def value(self, node: ast.expr) -> Any:
        match node:
            case ast.Constant(value=bool() | int() | float() | str()):
                return node.value
            case ast.Name():
                return self.column(node)
            case ast.UnaryOp(op=ast.Not() | ast.Invert()):
                return ~self.truth(node.operand)
            case ast.UnaryOp(op=ast.USub()):
                return -self.number(node.operand)
            case ast.UnaryOp(op=ast.UAdd()):
                return self.number(node.operand)
            case ast.BinOp() if type(node.op) in ARITHMETIC:
                return self.arithmetic(node)
            case ast.BoolOp():
                both = operator.and_ if isinstance(node.op, ast.And) else operator.or_
                value = self.truth(node.values[0])
                for other in node.values[1:]:
                    value = both(value, self.truth(other))
                return value
            case ast.Compare():
                return self.comparison(node)
            case ast.Call(func=ast.Name(id=name), args=[one], keywords=[]) if name in FUNCTIONS:
                value = self.value(one) if name in OF_ANYTHING else self.number(one)
                return FUNCTIONS[name](value)
        self.refuse(node)

    def column(self, node: ast.Name) -> pd.Series | float:
        name = self.quoted.get(node.id, node.id)
        if name in self.frame:
            if isinstance(self.frame[name], pd.Series):
                return self.frame[name]
            raise InputError(f"{name}: the table has several columns of this name")
        if name == "inf":
            return math.inf
        raise InputError(f"{_short(name)}: {no_such_column(self.frame, name)}")

    def number(self, node: ast.expr) -> pd.Series | float:
        return self.as_number(self.value(node), node)

    def as_number(self, value: Any, node: ast.expr) -> pd.Series | float:
        """The worth of a piece as float64, whole numbers included: those of numpy overflow in silence."""
        if isinstance(value, pd.Series) and pd.api.types.is_numeric_dtype(value):
            return value.astype(float)
        if isinstance(value, bool | np.bool_ | int | float):
            with contextlib.suppress(OverflowError):
                return float(value)
        raise InputError(f"{self.shown(node)}: expected a number, or a column of numbers")

    def arithmetic(self, node: ast.BinOp) -> pd.Series | float:
        values, apply = (self.value(node.left), self.value(node.right)), ARITHMETIC[type(node.op)]
        if all(_is_truth(value) for value in values):
            raise InputError(f"{self.shown(node)}: of two conditions; multiply each by 1 to count them")
        left, right = self.as_number(values[0], node.left), self.as_number(values[1], node.right)
        if isinstance(left, pd.Series) or isinstance(right, pd.Series):
            return apply(left, right)
        value = float(apply(np.float64(left), np.float64(right)))  # of numpy: no exceptions, no complex numbers
        if not math.isfinite(value):
            raise InputError(f"{self.shown(node)}: is no finite number")
        return value

    def truth(self, node: ast.expr) -> pd.Series | np.bool_:
        value = self.value(node)
        if not _is_truth(value):
            raise InputError(f"{self.shown(node)}: expected a condition, true or false for each row")
        return value if isinstance(value, pd.Series) else np.bool_(value)  # ~True is -2

    def comparison(self, node: ast.Compare) -> pd.Series | np.bool_:
        nodes = [node.left, *node.comparators]
        # Each once, or chains within chains take for ever.
        values = [self.items(one) if isinstance(one, ast.List | ast.Tuple) else self.value(one) for one in nodes]
        made = np.bool_(True)
        for how, left, right in zip(node.ops, values, values[1:], strict=False):
            if type(how) not in (*COMPARISONS, ast.In, ast.NotIn):
                self.refuse(node)
            try:
                made = made & self.compared(left, how, right, node)
            except InputError:
                raise
            except (TypeError, ValueError, OverflowError):
                raise InputError(f"{self.shown(node)}: these cannot be compared") from None
        return made

    def items(self, node: ast.List | ast.Tuple) -> list:
        values = [self.value(one) for one in node.elts]
        if any(isinstance(value, pd.Series) for value in values):
            raise InputError(f"{self.shown(node)}: expected a list of values, without columns")
        return values

    def compared(self, left: Any, how: ast.cmpop, right: Any, node: ast.expr) -> pd.Series | np.bool_:
        if isinstance(how, ast.In | ast.NotIn) and isinstance(left, pd.Series) and isinstance(right, list):
            holds = left.isin(right)
            return holds if isinstance(how, ast.In) else ~holds
        if type(how) not in COMPARISONS or isinstance(left, list) or isinstance(right, list):
            raise InputError(f"{self.shown(node)}: a list stands behind `in`, and a column before it: P_post in [3, 4]")
        holds = COMPARISONS[type(how)](left, right)
        return holds if isinstance(holds, pd.Series) else np.bool_(holds)

    def refuse(self, node: ast.expr) -> NoReturn:
        hint = {ast.Attribute: "; write isnull(ptq) for ptq.isnull()", ast.Constant: "; write isnull(ptq) for None"}
        raise InputError(
            f"{self.shown(node)}: not part of a filter, which has columns, numbers, 'text', True, False, + - * / // % "
            f"**, comparisons, and or not, in [...], and {', '.join(FUNCTIONS)} of one column"
            f"{hint.get(type(node), hint[ast.Attribute] if isinstance(node, ast.Call) else '')}"
        )

    def shown(self, node: ast.expr) -> str:
        """A piece of the filter as it was written, or nearly."""
        text = ast.unparse(node)
        for name, column in self.quoted.items():
            text = re.sub(rf"\b{name}\b", lambda _, column=column: f"`{column}`", text)
        return _short(text)


def _is_truth(value: Any) -> bool:
    return isinstance(value, bool | np.bool_) or (isinstance(value, pd.Series) and value.dtype == bool)


def _short(text: str) -> str:
    text = text if text.isprintable() else ascii(text)
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}..."
