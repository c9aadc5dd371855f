"""`stats()` counts what happened to this client, and says how much there is now."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import pytest
from cachetronomy import Cachetronaut

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cachetronomy._core import ManualClock
    from conftest import Tier

pytestmark = pytest.mark.both_clients


KEYS = {
    "memory_hits": int,
    "store_hits": int,
    "misses": int,
    "hit_ratio": float,
    "sets": int,
    "evictions": dict,
    "evictions_count": int,
    "expired": int,
    "memory_keys": int,
    "memory_bytes": int,
    "store_keys": int,
    "store_bytes": int,
    "total_keys": int,
    "hot_keys": list,
    "seconds_saved": float,
    "errors": int,
    "profile": str,
}


def busy_for(seconds: float) -> None:
    """Compute so long at the least."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


def test_every_key_is_there_from_the_start(anywhere: Cachetronaut) -> None:
    stats = anywhere.stats()
    assert {name: type(value) for name, value in stats.items()} == KEYS
    assert stats["store_bytes"] > 0
    zero = set(KEYS) - {"store_bytes", "profile", "evictions", "hot_keys"}
    assert {name: stats[name] for name in zero} == dict.fromkeys(zero, 0)
    assert (stats["evictions"], stats["hot_keys"], stats["profile"]) == ({}, [], "default")


def test_hits_of_each_tier_and_misses_are_told_apart(anywhere: Cachetronaut) -> None:
    anywhere.set("key", 1)
    anywhere.get("key")
    anywhere.evict("key")
    anywhere.get("key")
    anywhere.get("key", promote=False)
    anywhere.get("missing")
    anywhere.get("key", version=9)
    anywhere.get_many(["key", "missing", "gone"])
    stats = anywhere.stats()
    assert (stats["memory_hits"], stats["store_hits"], stats["misses"]) in [(3, 1, 4), (2, 2, 4)]
    assert stats["hit_ratio"] == pytest.approx(0.5)


def test_a_hit_is_counted_for_the_tier_that_served_it(cache: Cachetronaut, tier: Tier) -> None:
    cache.set_many({"a": 1, "b": 2})
    reader = tier(cache)
    reader.get("a")
    reader.get_many(["b"])
    stats = reader.stats()
    expected = (2, 0) if tier.name == "memory" else (0, 2)
    assert (stats["memory_hits"], stats["store_hits"]) == expected
    assert (stats["misses"], stats["hit_ratio"]) == (0, 1.0)


def test_sizes_are_those_of_now(anywhere: Cachetronaut, clock: ManualClock) -> None:
    anywhere.set_many({"a": "x" * 1_000, "b": "y" * 3_000})
    anywhere.set("short", 1, ttl=10)
    stats = anywhere.stats()
    assert (stats["memory_keys"], stats["store_keys"], stats["total_keys"]) == (3, 3, 3)
    assert 4_000 <= stats["memory_bytes"] <= 4_400
    assert stats["store_bytes"] >= 4_000
    assert stats["sets"] == 3
    anywhere.evict("b")
    assert 1_000 <= anywhere.stats()["memory_bytes"] <= 1_200
    clock.advance(10)
    anywhere.clear_expired()
    stats = anywhere.stats()
    assert (stats["memory_keys"], stats["store_keys"], stats["total_keys"]) == (1, 2, 2)
    assert stats["expired"] == 1
    anywhere.clear_all()
    stats = anywhere.stats()
    assert (stats["memory_keys"], stats["memory_bytes"]) == (0, 0)
    assert (stats["store_keys"], stats["total_keys"]) == (0, 0)
    assert stats["sets"] == 3


def test_replacing_a_value_replaces_its_bytes(anywhere: Cachetronaut) -> None:
    anywhere.set("key", "x" * 10_000)
    anywhere.set("key", "y")
    assert anywhere.stats()["memory_bytes"] < 100
    assert anywhere.stats()["sets"] == 2


def evict_key(cache: Cachetronaut, _clock: ManualClock) -> None:
    cache.evict("a")


def evict_all(cache: Cachetronaut, _clock: ManualClock) -> None:
    cache.evict_all()


def clear_all(cache: Cachetronaut, _clock: ManualClock) -> None:
    cache.clear_all()


def delete(cache: Cachetronaut, _clock: ManualClock) -> None:
    cache.delete("a")


def delete_many(cache: Cachetronaut, _clock: ManualClock) -> None:
    cache.delete_many(["a", "b", "missing"])


def clear_tag(cache: Cachetronaut, _clock: ManualClock) -> None:
    cache.clear_by_tags("t")


def expire(cache: Cachetronaut, clock: ManualClock) -> None:
    clock.advance(60)
    cache.clear_expired()


def overflow(cache: Cachetronaut, _clock: ManualClock) -> None:
    cache.set_many({"d": 4, "e": 5})


@pytest.mark.parametrize(
    ("act", "reason", "count"),
    [
        (evict_key, "manual_eviction_clear_key", 1),
        (evict_all, "manual_eviction_clear_full_cache", 3),
        (clear_all, "manual_eviction_clear_full_cache", 3),
        (delete, "user_eviction", 1),
        (delete_many, "user_eviction", 2),
        (clear_tag, "tag_invalidation", 3),
        (expire, "time_eviction", 3),
        (overflow, "capacity_eviction", 2),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_each_eviction_is_counted_and_logged_with_its_reason(
    open_cache: Callable[..., Cachetronaut],
    clock: ManualClock,
    db_path: Path,
    query: Callable[..., Any],
    act: Callable[[Cachetronaut, ManualClock], None],
    reason: str,
    count: int,
) -> None:
    cache = open_cache(max_items_in_memory=3)
    cache.set_many({"a": 1, "b": 2, "c": 3}, ttl=60, tags=["t"])
    cache.get("a")
    act(cache, clock)
    stats = cache.stats()
    assert stats["evictions"] == {reason: count}
    assert stats["evictions_count"] == count
    cache.flush()
    logged = query(db_path, "SELECT reason, evicted_by_profile FROM eviction_log")
    assert logged == [[reason, "default"]] * count


def test_evictions_of_nothing_are_not_counted(anywhere: Cachetronaut) -> None:
    anywhere.evict("missing")
    anywhere.delete("missing")
    anywhere.evict_all()
    anywhere.clear_all()
    anywhere.clear_expired()
    anywhere.clear_by_tags("t")
    assert anywhere.stats()["evictions_count"] == 0


def test_the_log_keeps_the_hits_that_a_key_had(
    cache: Cachetronaut, db_path: Path, query: Callable[..., Any]
) -> None:
    cache.set("key", 1)
    for _ in range(3):
        cache.get("key")
    cache.evict("key")
    cache.flush()
    rows = query(db_path, "SELECT key, last_access_count FROM eviction_log")
    assert rows == [["key", 3]]


def test_hits_save_the_seconds_that_computing_took(cache: Cachetronaut, tier: Tier) -> None:
    @cache
    def slow(number: int) -> int:
        busy_for(0.01)
        return number

    slow(1)
    assert cache.stats()["seconds_saved"] == 0.0
    reader = tier(cache)
    for hits in range(1, 4):
        assert reader.get(slow.key_for(1)) == 1
        assert reader.stats()["seconds_saved"] >= hits * 0.009
    reader.get_many([slow.key_for(1)])
    assert reader.stats()["seconds_saved"] >= 4 * 0.009


def test_hits_of_a_coroutine_function_save_its_seconds(cache: Cachetronaut) -> None:
    @cache(ttl=60)
    async def slow(number: int) -> int:
        busy_for(0.01)
        await asyncio.sleep(0)
        return number

    async def call_thrice() -> None:
        for _ in range(3):
            assert await slow(2) == 2

    asyncio.run(call_thrice())
    assert cache.stats()["seconds_saved"] >= 2 * 0.009


def test_a_value_that_was_set_saves_nothing(anywhere: Cachetronaut) -> None:
    anywhere.set("key", 1)
    anywhere.get("key")
    assert anywhere.stats()["seconds_saved"] == 0.0


def test_a_set_in_the_place_of_a_computed_value_forgets_its_seconds(
    cache: Cachetronaut, tier: Tier
) -> None:
    @cache
    def slow() -> int:
        busy_for(0.01)
        return 1

    slow()
    cache.set(slow.key_for(), 2)
    reader = tier(cache)
    assert reader.get(slow.key_for()) == 2
    assert reader.stats()["seconds_saved"] == 0.0


def test_hot_keys_are_the_ten_hottest_of_the_store(anywhere: Cachetronaut) -> None:
    anywhere.set_many({f"k{n:02}": n for n in range(12)})
    for number in range(12):
        for _ in range(number):
            anywhere.get(f"k{number:02}")
    stats = anywhere.stats()
    assert stats["hot_keys"] == [(f"k{n:02}", n) for n in range(11, 1, -1)]
    assert stats["hot_keys"] == anywhere.get_hot_keys()


def test_a_damaged_entry_is_a_miss_each_time_and_an_error_once(
    cache: Cachetronaut, db_path: Path, query: Callable[..., Any]
) -> None:
    cache.set_many({"bad": 1, "good": 2})
    query(db_path, "UPDATE cache SET data = x'c1' WHERE key = 'bad'")
    assert cache.get("bad", default="default") == "default"
    assert cache.get_many(["bad", "good"]) == {"good": 2}
    stats = cache.stats()
    assert (stats["errors"], stats["misses"]) == (1, 2)
    cache.set("bad", 3)
    assert cache.get("bad") == 3


def test_each_client_counts_for_itself(open_cache: Callable[..., Cachetronaut]) -> None:
    one, two = open_cache(), open_cache()
    one.set("key", 1)
    one.get("key")
    stats = two.stats()
    assert (stats["sets"], stats["memory_hits"], stats["memory_keys"]) == (0, 0, 0)
    assert stats["store_keys"] == 1
