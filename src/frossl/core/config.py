"""Frozen dataclasses to plain data and back, with errors that name the valid keys and values."""

from __future__ import annotations

import dataclasses
import types
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from frossl.core.registry import unknown_name
from frossl.core.types import UserError

T = TypeVar("T")


def to_plain(value: Any) -> Any:
    """Converts dataclasses to dictionaries, tuples to lists and paths to strings."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {key: to_plain(v) for key, v in value.items()}
    if isinstance(value, tuple | list):
        return [to_plain(v) for v in value]
    return str(value) if isinstance(value, Path) else value


def from_plain(kind: type[T], plain: dict[str, Any]) -> T:
    """The inverse of :func:`to_plain` for a dataclass type.

    Raises:
        UserError: an unknown key, or a value that does not fit its field.
    """
    hints, fields = get_type_hints(kind), dataclasses.fields(kind)  # type: ignore[arg-type]
    names = [f.name for f in fields]
    for key in plain:
        if key not in names:
            raise unknown_name(f"{kind.__qualname__} option", key, names)
    required = [f.name for f in fields if f.default is f.default_factory is dataclasses.MISSING]
    if missing := [name for name in required if name not in plain]:
        raise UserError(f"{kind.__qualname__} needs {', '.join(missing)}")
    return kind(**{key: _convert(hints[key], value, f"{kind.__qualname__}.{key}") for key, value in plain.items()})


def _convert(hint: Any, value: Any, where: str) -> Any:
    origin, args = get_origin(hint), get_args(hint)
    if hint is Any:
        return value
    if origin in (Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        return _convert(next(a for a in args if a is not type(None)), value, where)
    if origin is Literal:
        if not any(type(value) is type(a) and value == a for a in args):
            raise unknown_name(where, str(value), [str(a) for a in args])
        return value
    if dataclasses.is_dataclass(hint) and isinstance(value, dict):
        return from_plain(hint, value)  # type: ignore[arg-type]
    if origin is tuple and isinstance(value, list | tuple):
        inner = [args[0]] * len(value) if args[1:] == (...,) else args
        if len(inner) != len(value):
            raise UserError(f"{where} takes {len(inner)} values, got {len(value)}")
        return tuple(_convert(a, v, where) for a, v in zip(inner, value, strict=True))
    if origin is list and isinstance(value, list):
        return [_convert(args[0], v, where) for v in value]
    if origin is dict and isinstance(value, dict):
        return {k: _convert(args[1], v, f"{where}[{k!r}]") for k, v in value.items()}
    if hint is Path and isinstance(value, str | Path):
        return Path(value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    kind = origin or hint
    if isinstance(kind, type) and (not isinstance(value, kind) or (kind is not bool and isinstance(value, bool))):
        raise UserError(f"{where} must be {kind.__name__}, got {value!r}")
    return value
