"""Dataclasses as JSON: what was written is read back, anything else is refused."""

import dataclasses
import json
from typing import Literal

import pytest

from meljax.util.typed_json import from_json, to_json


@dataclasses.dataclass(frozen=True)
class Part:
    name: str
    size: int = 3


@dataclasses.dataclass(frozen=True)
class Whole:
    parts: tuple[Part, ...]
    counts: dict[str, int]
    share: float | None
    kind: Literal["a", "b"] = "a"


WHOLE = Whole((Part("one"), Part("two", 4)), {"x": 1}, 0.5, "b")


def test_a_record_is_read_back():
    assert from_json(Whole, to_json(WHOLE)) == WHOLE
    assert to_json(WHOLE).endswith("}\n")


def test_absent_fields_get_their_defaults():
    text = '{"parts": [{"name": "one"}], "counts": {}, "share": null}'
    assert from_json(Whole, text) == Whole((Part("one"),), {}, None)


@pytest.mark.parametrize(
    "change",
    [
        {"parts": [{"name": 1}]},
        {"parts": [{"size": 3}]},
        {"parts": [{"name": "one", "color": "red"}]},
        {"parts": [{"name": "one", "size": True}]},
        {"parts": {}},
        {"counts": {"x": "1"}},
        {"counts": {"x": 1.0}},
        {"share": "0.5"},
        {"share": 1},
        {"kind": "c"},
        {"more": 1},
    ],
)
def test_another_field_or_type_is_refused(change):
    values = json.loads(to_json(WHOLE))
    with pytest.raises(ValueError, match=r"is not|the fields are"):
        from_json(Whole, json.dumps(values | change))


@pytest.mark.parametrize("field", ["parts", "counts", "share"])
def test_a_missing_field_is_refused(field):
    values = json.loads(to_json(WHOLE))
    del values[field]
    with pytest.raises(ValueError, match="the fields are"):
        from_json(Whole, json.dumps(values))
