"""The pydantic models of rows take what they always took, and refuse the rest."""

from __future__ import annotations

import json
from datetime import datetime, timezone

import pytest
from cachetronomy.core.types.schemas import (
    AccessLogEntry,
    CacheEntry,
    CacheMetadata,
    CustomQuery,
    EvictionLogEntry,
    ExpiredEntry,
)
from pydantic import ValidationError

NOW = datetime(2026, 11, 22, 6, 0, 15, 407783, tzinfo=timezone.utc)
NEEDED = {"key": "k", "expire_at": NOW, "saved_by_profile": "default"}


def test_metadata_has_defaults():
    metadata = CacheMetadata(**NEEDED)
    assert (metadata.fmt, metadata.version) == ("json", 1)
    assert metadata.tags == ["default"], "as the original package tags what has no tags at all"
    assert metadata.tags_json == '["default"]'
    assert CacheMetadata(**NEEDED, tags=[]).tags == []


@pytest.mark.parametrize("tags", [[], ["a"], ["ä", '"', "b,c"]])
def test_tags_as_json_read_back(tags):
    assert json.loads(CacheMetadata(**NEEDED, tags=tags).tags_json) == tags


def test_input_is_left_as_it_is():
    values = {**NEEDED, "tags": None}
    assert CacheMetadata.model_validate(values).tags == ["default"]
    assert values == {**NEEDED, "tags": None}


@pytest.mark.parametrize("missing", sorted(NEEDED))
def test_what_is_needed_is_asked_for(missing):
    with pytest.raises(ValidationError, match=missing):
        CacheMetadata(**{name: value for name, value in NEEDED.items() if name != missing})


@pytest.mark.parametrize("data", [b"bytes", "text", None, {"any": [1]}])
def test_an_entry_holds_bytes_or_the_value(data):
    assert CacheEntry(**NEEDED, data=data).data == data


def test_an_entry_needs_data():
    with pytest.raises(ValidationError, match="data"):
        CacheEntry(**NEEDED)


def test_times_are_read_from_the_text_of_the_tables():
    text = "2026-11-22T06:00:15.407783+00:00"
    assert ExpiredEntry(key="k", expire_at=text).expire_at == NOW
    assert CacheMetadata(**{**NEEDED, "expire_at": text}).expire_at == NOW


@pytest.mark.parametrize("version", [0, -1, "x"])
def test_a_version_is_at_least_1(version):
    with pytest.raises(ValidationError, match="version"):
        CacheMetadata(**NEEDED, version=version)


LOGGED = [
    AccessLogEntry(key="k", access_count=0, last_accessed=NOW, last_accessed_by_profile="p"),
    EvictionLogEntry(
        id=None,
        key="k",
        evicted_at=NOW,
        reason="time_eviction",
        last_access_count=0,
        evicted_by_profile="p",
    ),
]


@pytest.mark.parametrize("entry", LOGGED, ids=lambda entry: type(entry).__name__)
def test_lines_of_logs_cannot_be_changed(entry):
    with pytest.raises(ValidationError, match="frozen"):
        entry.key = "other"
    assert len({entry, entry.model_copy()}) == 1


@pytest.mark.parametrize("entry", LOGGED, ids=lambda entry: type(entry).__name__)
def test_counts_are_not_negative(entry):
    count = next(name for name in type(entry).model_fields if name.endswith("_count"))
    with pytest.raises(ValidationError, match=count):
        type(entry)(**{**entry.model_dump(), count: -1})


@pytest.mark.parametrize("word", ["insert", "update", "delete", "drop", "alter"])
def test_a_query_that_writes_has_to_say_so(word):
    query = f"\n  {word.upper()} whatever"
    with pytest.raises(ValidationError, match="autocommit=True"):
        CustomQuery(query=query)
    assert CustomQuery(query=query, autocommit=True).autocommit is True


def test_a_query_has_defaults():
    query = CustomQuery(query="SELECT 1")
    assert (query.params, query.schema_type, query.autocommit) == ((), None, False)
    assert CustomQuery(query="SELECT 1", params=None, schema_type=ExpiredEntry).params is None
