"""The logs of accesses and evictions, through the client and through its store."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from cachetronomy import Cachetronaut, Profile
from cachetronomy._core import ManualClock
from cachetronomy.core.types.schemas import AccessLogEntry, EvictionLogEntry
from conftest import short_id

pytestmark = pytest.mark.both_clients


AT = datetime(2026, 11, 22, 6, 0, 15, 407783, tzinfo=timezone.utc)


def accessed(key: str = "key", at: datetime = AT, profile: str = "p") -> AccessLogEntry:
    return AccessLogEntry(
        key=key, access_count=1, last_accessed=at, last_accessed_by_profile=profile
    )


def evicted(key: str = "key", at: datetime = AT, reason: str = "memory_eviction") -> Any:
    return EvictionLogEntry(
        id=None,
        key=key,
        evicted_at=at,
        reason=reason,
        last_access_count=4,
        evicted_by_profile="p",
    )


def reasons(cache: Cachetronaut) -> list[tuple[str, str]]:
    return [(line.key, line.reason) for line in cache.eviction_logs()]


def test_accesses_are_read_back_hottest_first(anywhere: Cachetronaut) -> None:
    anywhere.profile = "mine"
    anywhere.set_many({"a": 1, "b": 2, "c": 3})
    for key in "abcbcb":
        anywhere.get(key)
    logs = anywhere.access_logs()
    assert [(one.key, one.access_count) for one in logs] == [("b", 3), ("c", 2), ("a", 1)]
    assert {one.last_accessed_by_profile for one in logs} == {"mine"}
    assert all(one.last_accessed.tzinfo is timezone.utc for one in logs)
    assert anywhere.access_logs(limit=2) == anywhere.store_stats(2) == logs[:2]
    assert anywhere.store.access_logs() == anywhere.store.get_all_access_logs() == logs
    assert anywhere.store.stats() == logs
    assert anywhere.key_access_logs("c") == anywhere.store.key_access_logs("c") == logs[1]


def test_an_unknown_key_has_no_accesses(anywhere: Cachetronaut) -> None:
    row = anywhere.key_access_logs("unknown")
    assert (row.key, row.access_count, row.last_accessed_by_profile) == ("unknown", 0, "(n/a)")
    assert abs(row.last_accessed - datetime.now(timezone.utc)) < timedelta(minutes=5)
    assert anywhere.access_logs() == []


def test_accesses_are_forgotten(anywhere: Cachetronaut) -> None:
    anywhere.set_many({"a": 1, "b": 2, "c": 3})
    anywhere.get_many(["a", "b", "c"])
    assert anywhere.delete_access_logs("a") is None
    anywhere.delete_access_logs("unknown")
    assert [one.key for one in anywhere.access_logs()] == ["b", "c"]
    anywhere.clear_access_logs()
    assert anywhere.access_logs() == []
    assert anywhere.key_access_logs("b").access_count == 0


@pytest.mark.parametrize("batch", [True, False])
def test_accesses_are_logged_by_hand(anywhere: Cachetronaut, batch: bool) -> None:
    later = AT + timedelta(seconds=1, microseconds=5)
    anywhere.store.log_access(accessed(), batch)
    anywhere.store.log_access(accessed(at=later, profile="q"), batch=batch)
    assert anywhere.key_access_logs("key") == AccessLogEntry(
        key="key", access_count=2, last_accessed=later, last_accessed_by_profile="q"
    )


def test_a_batch_of_accesses_is_logged(anywhere: Cachetronaut) -> None:
    anywhere.store.log_access_batch([accessed("a"), accessed("b"), accessed("a")])
    anywhere.store.log_access_batch(set())
    assert [(one.key, one.access_count) for one in anywhere.access_logs()] == [("a", 2), ("b", 1)]


def drop(cache: Cachetronaut) -> None:
    cache.delete("key")


REASONS = [
    ("manual_eviction_clear_key", lambda cache: cache.evict("key")),
    ("manual_eviction_clear_full_cache", lambda cache: cache.evict_all()),
    ("user_eviction", drop),
    ("tag_invalidation", lambda cache: cache.clear_by_tags("t")),
    ("profile_invalidation", lambda cache: cache.clear_by_profile("mine")),
    ("capacity_eviction", lambda cache: cache.update_active_profile(max_items_in_memory=0)),
]


@pytest.mark.parametrize(("reason", "act"), REASONS, ids=short_id)
def test_each_eviction_is_logged_with_its_reason(
    anywhere: Cachetronaut, reason: str, act: Callable[[Cachetronaut], object]
) -> None:
    anywhere.profile = Profile(name="mine", tags=["t"])
    anywhere.set("key", 1)
    for _ in range(3):
        anywhere.get("key")
    act(anywhere)
    (line,) = anywhere.eviction_logs()
    assert (line.key, line.reason, line.evicted_by_profile) == ("key", reason, "mine")
    assert line.last_access_count == 3
    assert line.evicted_at.tzinfo is timezone.utc
    assert anywhere.stats()["evictions"] == {reason: 1}


def test_an_expired_entry_is_logged(anywhere: Cachetronaut, clock: ManualClock) -> None:
    anywhere.set("key", 1, ttl=10)
    clock.advance(10)
    assert [entry.key for entry in anywhere.clear_expired()] == ["key"]
    assert reasons(anywhere) == [("key", "time_eviction")]


def test_evictions_are_read_back_newest_first(anywhere: Cachetronaut, clock: ManualClock) -> None:
    for key in "abc":
        anywhere.set(key, 1)
        anywhere.delete(key)
        clock.advance(1)
    lines = anywhere.eviction_logs()
    assert [line.key for line in lines] == ["c", "b", "a"]
    ids = [line.id for line in lines]
    assert ids == sorted(ids, reverse=True)
    assert anywhere.eviction_logs(2) == anywhere.eviction_logs(limit=2) == lines[:2]
    assert anywhere.eviction_logs(None) == anywhere.store.eviction_logs() == lines
    assert anywhere.store.eviction_count() == 3
    anywhere.clear_eviction_logs()
    assert anywhere.eviction_logs() == []
    assert anywhere.store.eviction_count() == 0


@pytest.mark.parametrize("batch", [True, False])
def test_evictions_are_logged_by_hand(anywhere: Cachetronaut, batch: bool) -> None:
    anywhere.store.log_eviction(evicted(), batch)
    (line,) = anywhere.eviction_logs()
    assert line.id is not None
    assert line.model_copy(update={"id": None}) == evicted()
    anywhere.store.log_eviction_batch([evicted("a"), evicted("b")])
    assert {one.key for one in anywhere.eviction_logs()} == {"key", "a", "b"}
    anywhere.store.clear_eviction_logs()
    assert anywhere.eviction_logs() == []


def test_logs_outlive_the_client(open_cache: Callable[..., Cachetronaut]) -> None:
    with open_cache() as cache:
        cache.set("key", 1)
        cache.get("key")
        cache.delete("key")
        accesses, evictions = cache.access_logs(), cache.eviction_logs()
    later = open_cache()
    assert (later.access_logs(), later.eviction_logs()) == (accesses, evictions)
    assert len(accesses) == len(evictions) == 1


def test_a_batched_line_is_written_by_the_end(open_cache: Callable[..., Cachetronaut]) -> None:
    with open_cache() as cache:
        cache.store.log_access(accessed())
        cache.store.log_eviction(evicted())
    later = open_cache()
    assert later.access_logs() == [accessed()]
    assert reasons(later) == [("key", "memory_eviction")]
