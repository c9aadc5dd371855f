"""Operations that read and write in one step: what they return, and that nobody comes between."""

from __future__ import annotations

import fnmatch
import math
import re
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from cachetronomy import (
    CacheClosedError,
    Cachetronaut,
    InvalidKeyError,
    InvalidSettingError,
    SerializationError,
)
from cachetronomy._core import ManualClock
from conftest import Tier
from hypothesis import given, settings
from hypothesis import strategies as st

pytestmark = pytest.mark.both_clients


def test_add_stores_only_where_there_is_no_live_entry(
    anywhere: Cachetronaut, clock: ManualClock
) -> None:
    assert anywhere.add("key", (1, 2), ttl=10, tags="t", version=3) is True
    assert anywhere.add("key", "other", version=4) is False
    assert anywhere.get("key") == (1, 2)
    assert anywhere.key_metadata("key").tags == ["t"]
    assert anywhere.key_metadata("key").version == 3
    clock.advance(10)
    assert anywhere.add("key", "other") is True
    assert anywhere.get("key") == "other"
    assert anywhere.stats()["sets"] == 2
    assert anywhere.add("zero", 1, ttl=0) is anywhere.add("key", 1, ttl=0) is False
    assert anywhere.store_keys() == ["key"]


def test_what_add_stored_is_read_from_each_tier(cache: Cachetronaut, tier: Tier) -> None:
    cache.add("key", {"a": [1]})
    assert tier(cache).get("key") == {"a": [1]}


def test_an_entry_that_cannot_be_read_is_none_to_add_and_incr(
    cache: Cachetronaut, db_path: Path, query: Callable[..., Any]
) -> None:
    cache.set_many({"a": 1, "n": 5})
    query(db_path, "UPDATE cache SET checksum = 1")
    assert cache.add("a", 2) is True
    assert cache.incr("n") == 1
    assert cache.get_many(["a", "n"]) == {"a": 2, "n": 1}


def test_incr_and_decr_count_from_the_default(anywhere: Cachetronaut, clock: ManualClock) -> None:
    assert anywhere.incr("n") == 1
    assert anywhere.incr("n", 10) == 11
    assert anywhere.decr("n", 4) == 7
    assert anywhere.decr("n", delta=-3) == 10
    assert anywhere.incr("from ten", default=10) == 11
    assert anywhere.decr("below", ttl=5) == -1
    assert anywhere.get_many(["n", "from ten", "below"]) == {"n": 10, "from ten": 11, "below": -1}
    clock.advance(5)
    assert anywhere.incr("below", default=100) == 101


def test_what_incr_wrote_is_an_int_in_each_tier_and_json(
    cache: Cachetronaut, tier: Tier, db_path: Path, query: Callable[..., Any]
) -> None:
    cache.set("n", 40, prefer="msgpack")
    assert cache.incr("n", 2) == 42
    reader = tier(cache)
    assert reader.get("n") == 42
    assert type(reader.get("n")) is int
    rows = query(db_path, "SELECT data, fmt, size FROM cache")
    assert rows == [[b"42".hex(), "json", 2]]
    assert cache.check() == []


def test_a_counter_keeps_deadline_tags_and_version(
    anywhere: Cachetronaut, clock: ManualClock
) -> None:
    anywhere.set("n", 1, ttl=100, tags=["a", "b"], version=7)
    clock.advance(40)
    assert anywhere.incr("n", tags=["other"]) == 2
    assert anywhere.ttl("n") == 60
    row = anywhere.key_metadata("n")
    assert (row.tags, row.version) == (["a", "b"], 7)
    assert anywhere.get("n", version=7) == 2
    assert anywhere.incr("n", ttl=500) == 3
    assert anywhere.ttl("n") == 500
    assert anywhere.clear_by_tags("a") == ["n"]
    anywhere.incr("n", tags=["new"])
    assert anywhere.clear_by_tags("new") == ["n"]


@pytest.mark.parametrize(
    "value", [True, 1.0, "1", None, [1], {"a": 1}, 2**64, -(2**63) - 1, b"1", (1,), 10**30]
)
@pytest.mark.parametrize("prefer", [None, "msgpack", "cachetronomy"])
def test_what_is_no_int_of_64_bits_is_refused_and_stays(
    cache: Cachetronaut, value: Any, prefer: str | None
) -> None:
    cache.set("the key", value, prefer=prefer, tags=["t"])
    for tier in ("memory", "store"):
        with pytest.raises(SerializationError, match=r"the key.*nothing was changed"):
            cache.incr("the key", ttl=5)
        assert cache.get("the key") == value, tier
        cache.evict_all()
    assert cache.ttl("the key") == 3600


@pytest.mark.parametrize("prefer", ["json", "orjson", "msgpack", "cachetronomy"])
@pytest.mark.parametrize("number", [0, -1, 255, 2**63, 2**64 - 2, -(2**63)])
def test_a_counter_of_any_format_and_size_counts_right(
    cache: Cachetronaut, number: int, prefer: str
) -> None:
    cache.set("n", number, prefer=prefer)
    assert cache.incr("n") == number + 1
    cache.evict_all()
    assert cache.get("n") == number + 1
    assert cache.decr("n") == number


@pytest.mark.parametrize(
    ("start", "delta"),
    [(2**64 - 1, 1), (-(2**63), -1), (0, 2**64), (5, 2**126), (-1, -(2**127)), (None, 2**64)],
)
def test_a_sum_beyond_64_bits_is_refused_and_nothing_changed(
    anywhere: Cachetronaut, start: int | None, delta: int
) -> None:
    if start is not None:
        anywhere.set("n", start)
    with pytest.raises(SerializationError, match="beyond 64 bits"):
        anywhere.incr("n", delta)
    assert anywhere.get("n") == start


@pytest.mark.parametrize("wrong", [1.5, True, "1", 2**200, [1]])
def test_a_step_that_is_no_int_is_refused(anywhere: Cachetronaut, wrong: Any) -> None:
    for call in (anywhere.incr, anywhere.decr):
        with pytest.raises(InvalidSettingError, match="delta"):
            call("n", wrong)
        with pytest.raises(InvalidSettingError, match="default"):
            call("n", default=wrong)
    assert anywhere.store_keys() == []


def test_a_counter_with_no_time_to_live_is_not_kept(anywhere: Cachetronaut) -> None:
    assert anywhere.incr("n", ttl=0) == 1
    anywhere.set("n", 5)
    assert anywhere.incr("n", ttl=0) == 6
    assert anywhere.get("n") is None
    assert anywhere.store_keys() == []


def test_pop_returns_what_it_deletes(anywhere: Cachetronaut, clock: ManualClock) -> None:
    anywhere.set_many({"a": (1, {2}), "none": None, "old": 1}, tags=["t"], ttl=5)
    assert anywhere.pop("a", default=7) == (1, {2})
    assert anywhere.pop("a", default=7) == 7
    assert anywhere.pop("none", default=7) is None
    clock.advance(5)
    assert anywhere.pop("old") is None
    assert anywhere.clear_by_tags("t") == []
    lines = anywhere.eviction_logs()
    assert {line.key for line in lines if line.reason == "user_eviction"} == {"a", "none"}
    assert anywhere.get("a") is None


def test_touch_restarts_the_life_of_a_live_entry(
    anywhere: Cachetronaut, clock: ManualClock
) -> None:
    anywhere.update_active_profile(time_to_live=77)
    anywhere.set("key", [1], ttl=10, tags=["t"], version=2)
    clock.advance(9)
    assert anywhere.touch("key", 20) is True
    clock.advance(19)
    assert anywhere.get("key", version=2) == [1]
    assert anywhere.touch("key") is True
    assert anywhere.ttl("key") == 77
    assert anywhere.touch("key", time_to_live=timedelta(minutes=1)) is True
    assert anywhere.ttl("key") == 60
    assert anywhere.touch("key", ttl=math.inf) is True
    assert anywhere.ttl("key") == math.inf
    assert anywhere.clear_by_tags("t") == ["key"]
    assert anywhere.touch("key") is False


def test_touch_shortens_a_life_in_memory_too(anywhere: Cachetronaut, clock: ManualClock) -> None:
    anywhere.set("key", 1, ttl=100)
    assert anywhere.get("key") == 1
    assert anywhere.touch("key", 5) is True
    clock.advance(5)
    assert anywhere.get("key") is None
    assert anywhere.touch("key") is False


def test_touch_with_no_time_to_live_removes(anywhere: Cachetronaut) -> None:
    anywhere.set("key", 1)
    assert anywhere.touch("key", 0) is True
    assert anywhere.touch("key", 0) is False
    assert anywhere.get("key") is None
    assert [line.reason for line in anywhere.eviction_logs()] == ["user_eviction"]


def test_ttl_and_expire_at_say_how_long_and_until_when(
    anywhere: Cachetronaut, clock: ManualClock
) -> None:
    before = datetime.now(timezone.utc)
    anywhere.set("key", 1, ttl=90.5)
    anywhere.set("ever", 1, ttl=math.inf)
    clock.advance(30)
    assert anywhere.ttl("key") == 60.5
    assert anywhere.ttl("ever") == math.inf
    until = anywhere.expire_at("key")
    assert until is not None
    assert until.tzinfo is timezone.utc
    assert abs(until - before - timedelta(seconds=90.5)) < timedelta(seconds=60)
    assert until == anywhere.key_metadata("key").expire_at
    assert anywhere.expire_at("ever") == datetime.max.replace(tzinfo=timezone.utc)
    clock.advance(60.5)
    assert anywhere.ttl("key") is anywhere.expire_at("key") is None
    assert anywhere.ttl("absent") is anywhere.expire_at("absent") is None
    assert anywhere.memory_stats() == []  # Looking is no hit.


def test_keys_are_found_by_pattern_and_tag(anywhere: Cachetronaut, clock: ManualClock) -> None:
    anywhere.set_many(dict.fromkeys(["u:1", "u:2", "u:22", "v:1", "", "*"], 0), tags=["a"])
    anywhere.set("u:3", 0, tags=["b"])
    anywhere.set("u:old", 0, tags=["a"], ttl=5)
    clock.advance(5)
    for pattern, wanted in {
        "u:*": ["u:1", "u:2", "u:22", "u:3"],
        "u:?": ["u:1", "u:2", "u:3"],
        "u:[!1]*": ["u:2", "u:22", "u:3"],
        "*:1": ["u:1", "v:1"],
        "u:1": ["u:1"],
        "[*]": ["*"],
        "": [""],
        "U:*": [],
    }.items():
        assert sorted(anywhere.keys(pattern)) == wanted, pattern
    assert sorted(anywhere.keys("u:?", tag="a")) == ["u:1", "u:2"]
    assert anywhere.keys(tag="b") == ["u:3"]
    assert anywhere.keys(tag="absent") == []
    assert sorted(anywhere.keys()) == sorted(anywhere.store_keys())
    assert anywhere.keys("u:3") == ["u:3"]


def test_keys_by_tag_are_found_in_a_file_whose_index_is_not_built(
    cache: Cachetronaut, db_path: Path, query: Callable[..., Any]
) -> None:
    cache.set_many({"a:1": 1, "b:1": 1}, tags=["t"])
    query(db_path, "DELETE FROM cache_tag")
    query(db_path, "INSERT INTO cachetronomy_meta(name, value) VALUES ('tags_indexed_to', '0')")
    assert cache.keys("a*", tag="t") == ["a:1"]


CHARACTERS = "ab-!^*?[]\\\n\u00e9"


@settings(max_examples=300, deadline=None)
@given(
    pattern=st.text(CHARACTERS, max_size=8),
    keys=st.sets(st.text(CHARACTERS, max_size=4), max_size=9),
)
def test_a_pattern_means_what_it_means_to_fnmatch(pattern: str, keys: set[str]) -> None:
    try:
        wanted = {key for key in keys if fnmatch.fnmatchcase(key, pattern)}
    except re.error:  # An empty range, before Python 3.11.
        return
    with Cachetronaut(":memory:", max_items_in_memory=0) as cache:
        cache.set_many(dict.fromkeys(keys, 0))
        assert set(cache.keys(pattern)) == wanted
        assert cache.delete_match(pattern) == len(wanted)
        assert set(cache.store_keys()) == keys - wanted


def test_delete_match_removes_and_logs_what_matches(
    anywhere: Cachetronaut, clock: ManualClock
) -> None:
    anywhere.set_many({f"u:{number}": number for number in range(5)}, tags=["t"])
    anywhere.set("kept", 1)
    anywhere.set("u:old", 1, ttl=5)
    clock.advance(5)
    assert anywhere.delete_match("u:*") == 5
    assert anywhere.delete_match("u:*") == 0
    assert anywhere.get_many(["u:1", "kept"]) == {"kept": 1}
    assert anywhere.clear_by_tags("t") == []
    lines = [line for line in anywhere.eviction_logs() if line.reason == "user_eviction"]
    assert sorted(line.key for line in lines) == [f"u:{number}" for number in range(5)]


CALLS: list[tuple[str, tuple[Any, ...]]] = [
    ("add", ("k", 1)),
    ("incr", ("k",)),
    ("decr", ("k",)),
    ("pop", ("k",)),
    ("touch", ("k",)),
    ("ttl", ("k",)),
    ("expire_at", ("k",)),
    ("keys", ()),
    ("delete_match", ("*",)),
    ("lock", ("k",)),
    ("disabled", ()),
]


@pytest.mark.parametrize(("method", "arguments"), CALLS)
def test_a_closed_client_says_so(
    anywhere: Cachetronaut, method: str, arguments: tuple[Any, ...]
) -> None:
    anywhere.close()
    with pytest.raises(CacheClosedError):
        getattr(anywhere, method)(*arguments)


@pytest.mark.parametrize(("method", "arguments"), [call for call in CALLS if "k" in call[1]])
def test_a_key_that_is_no_text_is_refused(
    anywhere: Cachetronaut, method: str, arguments: tuple[Any, ...]
) -> None:
    with pytest.raises(InvalidKeyError):
        getattr(anywhere, method)(5, *arguments[1:])


def test_bad_input_is_refused_before_anything_changes(anywhere: Cachetronaut) -> None:
    anywhere.set("k", 1)
    for call in (
        lambda: anywhere.touch("k", -1),
        lambda: anywhere.touch("k", math.nan),
        lambda: anywhere.incr("k", ttl=-1),
        lambda: anywhere.incr("k", tags=[""]),
        lambda: anywhere.add("new", 1, version=0),
        lambda: anywhere.keys(5),
        lambda: anywhere.keys(tag=""),
        lambda: anywhere.delete_match(None),
    ):
        with pytest.raises(InvalidSettingError):
            call()
    with pytest.raises(TypeError):
        anywhere.touch("k", 1, time_to_live=1)
    with pytest.raises(SerializationError):
        anywhere.add("new", object())
    assert anywhere.get("k") == 1
    assert anywhere.store_keys() == ["k"]
