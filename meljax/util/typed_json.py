"""Writes dataclasses as JSON and reads them with type checks."""

import dataclasses
import hashlib
import json
import typing
from types import UnionType
from typing import Any, Literal, TypeVar

T = TypeVar("T")


def to_json(record: Any) -> str:
    """Returns a dataclass as indented JSON with a line ending."""
    return json.dumps(dataclasses.asdict(record), indent=2) + "\n"


def parse_json(text: str) -> Any:
    """Returns what JSON holds.

    Raises:
      ValueError: `text` is not JSON, or is nested too deeply for Python's parser.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def from_json(kind: type[T], text: str) -> T:
    """Returns the dataclass `kind` from JSON of `to_json`; absent fields get their defaults.

    Raises:
      ValueError: `text` is not JSON, or a field is unknown, missing or of another type.
    """
    return from_values(kind, parse_json(text))


def from_values(kind: type[T], values: Any) -> T:
    """Returns the dataclass `kind` from what `dataclasses.asdict` returned; see `from_json`."""
    return _checked(kind, values)


def digest(values: Any) -> str:
    """Returns the sha256 of values that JSON can hold; the order of keys has no effect."""
    text = json.dumps(values, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _checked(kind: Any, value: Any) -> Any:
    """Returns `value` as `kind`: a dataclass, tuple, dict, Literal, union or plain type."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind) and isinstance(value, dict):
        return _record(kind, value)
    if origin is tuple and isinstance(value, list):
        return tuple(_checked(arguments[0], each) for each in value)
    if origin is dict and isinstance(value, dict):
        return {name: _checked(arguments[1], each) for name, each in value.items()}
    if origin is Literal and value in arguments:
        return value
    # `type`, not `isinstance`: True is not a number here.
    if type(value) in (arguments if origin is UnionType else (kind,)):
        return value
    raise ValueError(f"{value!r} is not {kind}")


def _record(kind: Any, values: dict[str, Any]) -> Any:
    types = typing.get_type_hints(kind)
    required = {
        field.name
        for field in dataclasses.fields(kind)
        if field.default is field.default_factory is dataclasses.MISSING
    }
    if not required <= values.keys() <= types.keys():
        raise ValueError(f"the fields are {sorted(values)}, not {sorted(types)}")
    return kind(**{name: _checked(types[name], value) for name, value in values.items()})
