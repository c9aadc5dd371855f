"""The module `serialization`: bytes and labels, the original's options, formats of one's own."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import msgpack
import orjson
import pytest
from cachetronomy import (
    Cachetronaut,
    CachetronomyError,
    InvalidSettingError,
    SerializationError,
    _core,
)
from cachetronomy.core.serialization import (
    choose_serializer,
    deserialize,
    export_model_schema,
    register_serializer,
    serialize,
)
from conftest import short_id
from pydantic import BaseModel, ValidationError

LABELLED = [
    (None, "json"),
    ({"b": [1, 2.5, "ä", None, True], "a": {}}, "json"),
    (b"\x00\xff", "msgpack"),
    ((1, 2), "cachetronomy"),
    ({1, 2}, "cachetronomy"),
]


class Point(BaseModel):
    """A model."""

    x: int
    y: float = 0.5


@pytest.mark.parametrize(("value", "label"), LABELLED, ids=short_id)
def test_values_come_back_and_the_label_is_told_before(value, label):
    data, fmt = serialize(value)
    assert fmt == choose_serializer(value) == label
    assert type(data) is bytes
    back = deserialize(data, fmt)
    assert back == value
    assert type(back) is type(value)


@pytest.mark.parametrize(("value", "label"), LABELLED, ids=short_id)
def test_without_options_the_bytes_are_those_of_the_core(value, label):
    assert serialize(value) == _core.serialize(value)
    assert serialize(value, indent=None) == _core.serialize(value)


@pytest.mark.parametrize("prefer", ["json", "orjson", "msgpack", "cachetronomy"])
def test_a_format_is_preferred_where_it_carries_the_value(prefer):
    value = {"a": [1, "ä"]}
    data, fmt = serialize(value, prefer=prefer)
    assert fmt == choose_serializer(value, prefer) == choose_serializer(value, prefer=prefer)
    assert fmt == prefer
    assert deserialize(data, fmt) == value
    readers = {"json": json.loads, "orjson": orjson.loads, "msgpack": msgpack.unpackb}
    if prefer in readers:
        assert readers[prefer](data) == value


def test_options_shape_json_text():
    value = {"b": "ä", "a": [1]}
    for prefer in ("json", "orjson"):
        indented, fmt = serialize(value, prefer=prefer, indent=2)
        assert fmt == prefer
        assert indented.decode() == json.dumps(value, indent=2, ensure_ascii=False)
        assert b"\\u00e4" in serialize(value, prefer=prefer, ensure_ascii=True)[0]
        assert serialize(value, prefer=prefer, sort_keys=True)[0].startswith(b'{"a"')
        assert serialize(value, prefer=prefer, sort_keys=False)[0].startswith(b'{"b"')
        assert deserialize(indented, fmt) == value


def test_options_leave_other_formats_alone():
    options = {"indent": 2, "sort_keys": True, "ensure_ascii": True}
    for value in (b"bytes", (1, 2)):
        assert serialize(value, **options) == serialize(value)


def test_what_no_format_carries_is_refused():
    for call in (serialize, choose_serializer):
        with pytest.raises(SerializationError):
            call(object())
        with pytest.raises(InvalidSettingError):
            call(1, prefer="unknown")


def test_text_is_taken_for_bytes():
    assert deserialize('{"a": "ä"}', "json") == {"a": "ä"}
    data, fmt = serialize({"a": b"\x80\xff"}, prefer="msgpack")
    assert deserialize(data.decode("latin-1"), fmt) == {"a": b"\x80\xff"}
    data, fmt = serialize((1, "ä"))
    assert deserialize(data.decode("latin-1"), fmt) == (1, "ä")


def test_a_model_is_made_of_the_value():
    data, fmt = serialize({"x": 1, "y": 2.0})
    assert deserialize(data, fmt, model_type=Point) == Point(x=1, y=2.0)
    assert deserialize(data, fmt, model_type=dict[str, int]) == {"x": 1, "y": 2}
    with pytest.raises(ValidationError):
        deserialize(data, fmt, model_type=list[int])


def test_a_model_is_written_as_a_plain_map():
    data, fmt = serialize(Point(x=1))
    assert (json.loads(data), fmt) == ({"x": 1, "y": 0.5}, "json")
    assert deserialize(data, fmt, model_type=Point) == Point(x=1)


def test_bad_bytes_and_unknown_formats_are_refused():
    for data, fmt in ((b"{", "json"), (b"\xc1", "msgpack"), (b"1", "unknown"), (b"", "json")):
        with pytest.raises(CachetronomyError):
            deserialize(data, fmt)


def test_a_registered_format_is_preferred_by_name(anywhere: Cachetronaut) -> None:
    name = f"reversed-{uuid4()}"
    register_serializer(
        name, lambda value: json.dumps(value).encode()[::-1], lambda data: json.loads(data[::-1])
    )
    assert serialize([1, 2], prefer=name) == (b"]2 ,1[", name)
    assert choose_serializer([1, 2], name) == name
    assert deserialize(b"]2 ,1[", name) == [1, 2]
    anywhere.set("key", [1, 2], prefer=name)
    anywhere.evict("key")
    assert anywhere.get("key") == [1, 2]
    metadata = anywhere.key_metadata("key")
    assert metadata is not None
    assert metadata.fmt == name


def test_a_schema_is_exported(tmp_path: Path) -> None:
    for path in (tmp_path / "a.json", str(tmp_path / "b.json")):
        export_model_schema(Point, path)
        assert json.loads(Path(path).read_text(encoding="utf-8")) == Point.model_json_schema()


@dataclass
class Pair:
    """A dataclass."""

    a: int
    b: list[int]


def test_a_dataclass_is_rebuilt_where_it_is_named() -> None:
    data, fmt = serialize(Pair(1, [2]))
    assert (json.loads(data), fmt) == ({"a": 1, "b": [2]}, "json")
    assert deserialize(data, fmt, model_type=Pair) == Pair(1, [2])
