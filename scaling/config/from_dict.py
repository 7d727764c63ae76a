"""Plain nested dicts in, frozen dataclasses out.

YAML files hold every default, dataclasses hold every type, its limits (`scaling.config.limits`) and its meaning.
`build` is the only way from one to the other, whether the dict was composed by Hydra, stored in a run folder or written
in a test. Each fault is one `InputError` line with the full key of the offending value.
"""

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from scaling.errors import InputError
from scaling.numbers import number

T = TypeVar("T")


class Settings:
    """Base of the dataclasses of settings: what is made without `build`, with `dataclasses.replace` for instance, has
    to be what its fields declare as well."""

    def __post_init__(self):
        for name, hint in _hints(type(self)).items():
            _convert(hint, getattr(self, name), name)


def build(cls: type[T], values: Any, key: str = "") -> T:
    """Make a `cls` (a dataclass) from a mapping of all its fields that have no default.

    Accepted field types: dataclass, a union of dataclasses that differ in their `kind: Literal[...]` field, `Literal`,
    `X | None`, `tuple[X, ...]`, `dict[str, X]`, `int` (also written 2e6 or 2M), `float`, `bool`, `str`, these with
    limits as `Annotated[X, ...]`, and `Any`.

    Raises:
        InputError: unknown, missing or mistyped value, or one beyond its limits; the line names its full key and what
            is accepted.
    """
    if not isinstance(values, Mapping):
        raise InputError(f"{key or cls.__name__}: {values!r} is not a group of settings")
    fields = {f.name: f for f in dataclasses.fields(cls)}
    for name in values:
        if name not in fields:
            raise InputError(f"{_join(key, name)}: no such setting; {nearest(str(name), fields)}")
    hints = _hints(cls)
    converted = {}
    for name, field in fields.items():
        full = _join(key, name)
        if name in values:
            converted[name] = _convert(hints[name], values[name], full)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise InputError(f"{full}: missing")
    try:
        return cls(**converted)
    except InputError as fault:
        # A dataclass does not know where it stands in the config: its place is put in front of the field it names.
        raise InputError(_join(key, str(fault))) from None


def plain(value: Any) -> Any:
    """The inverse of `build`: dataclasses to dicts and tuples to lists, ready for YAML or JSON."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, (tuple, list)):
        return [plain(v) for v in value]
    if isinstance(value, Mapping):
        return {k: plain(v) for k, v in value.items()}
    return value


def takes_list(cls: type, key: str) -> bool:
    """Whether the setting with this full key is a list, in any of the kinds that its group can have."""
    name, _, rest = key.partition(".")
    return any(
        (dataclasses.is_dataclass(kind) and takes_list(kind, rest)) if rest else get_origin(kind) is tuple
        for kind in _kinds(_hints(cls).get(name))
    )


def _kinds(hint: Any) -> list[Any]:
    """What a value of this type may be, without limits."""
    if get_origin(hint) is Annotated:
        return _kinds(get_args(hint)[0])
    return [k for a in get_args(hint) for k in _kinds(a)] if get_origin(hint) in (Union, types.UnionType) else [hint]


def nearest(name: str, known) -> str:
    """The tail of a "no such ..." line: the nearest known name, or all of them when none is near."""
    names = sorted(str(k) for k in known)
    close = difflib.get_close_matches(name, names, n=1)
    return f"did you mean {close[0]}?" if close else f"use one of {', '.join(names)}"


def _join(key: str, name: Any) -> str:
    return f"{key}.{name}" if key else str(name)


@cache
def _hints(cls: type) -> dict[str, Any]:
    """Field -> its type with its limits."""
    hints = get_type_hints(cls, include_extras=True)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls)}


def _shown(value: Any) -> str:
    """The value as it was written, on one line."""
    text = str(value)
    return text if text.isprintable() else repr(value)


def _convert(hint: Any, value: Any, key: str) -> Any:
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        converted, limits = _convert(args[0], value, key), hint.__metadata__
        if not all(limit.allows(converted) for limit in limits):
            raise InputError(f"{key}={_shown(converted)}: must be {' and '.join(map(str, limits))}")
        return converted
    if origin in (Union, types.UnionType):
        return _convert_union(args, value, key)
    if origin is Literal:
        if value not in args or isinstance(value, bool) != any(isinstance(a, bool) for a in args):
            raise InputError(f"{key}={_shown(value)}: use one of {', '.join(map(str, args))}")
        return value
    if origin is tuple:
        items = [value] if isinstance(value, (str, int, float)) else value
        if not isinstance(items, (list, tuple)):
            raise InputError(f"{key}={value!r}: expected a list")
        return tuple(_convert(args[0], item, f"{key}[{i}]") for i, item in enumerate(items))
    if origin is dict:
        if not isinstance(value, Mapping):
            raise InputError(f"{key}={value!r}: expected a group of names and values")
        return {str(k): _convert(args[1], v, _join(key, k)) for k, v in value.items()}
    if hint is Any:
        return value
    if dataclasses.is_dataclass(hint):
        return value if isinstance(value, hint) else build(typing.cast(type, hint), value, key)
    return _scalar(hint, value, key)


def _convert_union(args: tuple, value: Any, key: str) -> Any:
    members = [a for a in args if a is not types.NoneType]
    optional = len(members) < len(args)
    if value is None:
        if optional:
            return None
        raise InputError(f"{key}: missing")
    if len(members) == 1:
        try:
            return _convert(members[0], value, key)
        except InputError as fault:
            raise InputError(f"{fault}, or null") from None
    if isinstance(value, tuple(members)):
        return value
    kinds = {get_args(_hints(m)["kind"])[0]: m for m in members}
    if not isinstance(value, Mapping) or "kind" not in value:
        raise InputError(f"{key}.kind: missing; use one of {', '.join(kinds)}")
    kind = str(value["kind"])
    if kind not in kinds:
        raise InputError(f"{key}.kind={_shown(kind)}: {nearest(kind, kinds)}")
    return build(kinds[kind], value, key)


def _scalar(hint: type, value: Any, key: str) -> Any:
    if hint is bool and isinstance(value, bool):
        return value
    if hint is str and isinstance(value, (str, int, float)) and not isinstance(value, bool):
        return str(value)
    if hint in (int, float) and not isinstance(value, bool):
        return _number(hint, value, key)
    names = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
    raise InputError(f"{key}={value!r}: expected {names.get(hint, hint)}")


def _number(hint: type, value: Any, key: str) -> int | float:
    try:
        converted = number(value)
    except (TypeError, ValueError):
        raise InputError(f"{key}={value!r}: expected a number") from None
    except OverflowError:
        converted = math.inf
    if hint is float:
        if not math.isfinite(converted):
            raise InputError(f"{key}={_shown(value)}: expected a finite number")
        return converted
    if not math.isfinite(converted) or converted != int(converted):
        raise InputError(f"{key}={_shown(value)}: expected a whole number")
    if abs(converted) >= 2**63:
        raise InputError(f"{key}={_shown(value)}: expected a whole number of 64 bits")
    return value if isinstance(value, int) else int(converted)
