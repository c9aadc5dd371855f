"""Hits are counted: of this process at once, of all processes ever in the file."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest
from cachetronomy import Cachetronaut, InvalidSettingError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cachetronomy._core import ManualClock
    from conftest import Child, Tier

pytestmark = pytest.mark.both_clients


def read(cache: Cachetronaut, **counts: int) -> None:
    """Read each key so often."""
    for key, count in counts.items():
        for _ in range(count):
            assert cache.get(key) is not None


def test_the_hottest_come_first_and_equal_ones_by_key(anywhere: Cachetronaut) -> None:
    anywhere.set_many({"a": 1, "b": 2, "c": 3, "unread": 4})
    read(anywhere, b=5, c=2, a=2)
    hottest = [("b", 5), ("a", 2), ("c", 2)]
    assert anywhere.memory_stats() == hottest
    assert anywhere.get_hot_keys() == hottest
    assert [(row.key, row.access_count) for row in anywhere.store_stats()] == hottest


def test_limits_cut_the_tail(anywhere: Cachetronaut) -> None:
    keys = [f"k{n:02}" for n in range(15)]
    anywhere.set_many(dict.fromkeys(keys, 1))
    for number, key in enumerate(keys):
        read(anywhere, **{key: number + 1})
    hottest = [(key, number + 1) for number, key in reversed(list(enumerate(keys)))]
    assert anywhere.get_hot_keys() == hottest[:10]
    assert anywhere.get_hot_keys(limit=None) == hottest
    assert anywhere.get_hot_keys(3) == anywhere.memory_stats(3) == hottest[:3]
    assert anywhere.memory_stats() == hottest
    assert len(anywhere.store_stats()) == 15
    assert [row.key for row in anywhere.store_stats(limit=2)] == ["k14", "k13"]
    assert anywhere.get_hot_keys(0) == anywhere.memory_stats(0) == anywhere.store_stats(0) == []
    for method in (anywhere.get_hot_keys, anywhere.memory_stats, anywhere.store_stats):
        with pytest.raises(InvalidSettingError, match="limit: -1"):
            method(-1)


def test_a_hit_counts_once_from_whichever_tier(cache: Cachetronaut, tier: Tier) -> None:
    cache.set("key", 1)
    reader = tier(cache)
    for expected in range(1, 5):
        assert reader.get("key") == 1
        assert reader.memory_stats() == [("key", expected)]
        if expected == 2:
            reader.evict("key")
    assert cache.get_hot_keys() in ([("key", 4)], []), "the reader's are in the file when flushed"
    reader.flush()
    assert cache.get_hot_keys() == [("key", 4)]


def test_only_hits_that_promote_are_counted(cache: Cachetronaut, tier: Tier) -> None:
    cache.set("key", 1, version=2)
    reader = tier(cache)
    for _ in range(3):
        assert reader.get("key", promote=False) == 1
        assert reader.get("key", None, False) == 1
        assert reader.get("missing") is None
        assert reader.get("key", version=1) is None
    assert reader.memory_stats() == []
    assert reader.store_stats() == []
    assert reader.get("key", promote=True) == 1
    assert reader.memory_stats() == [("key", 1)]


def test_reads_of_many_and_of_decorated_functions_count(anywhere: Cachetronaut) -> None:
    @anywhere
    def double(number: int) -> int:
        return 2 * number

    anywhere.set("key", 1)
    anywhere.get_many(["key", "missing"])
    for _ in range(4):
        double(3)
    assert anywhere.memory_stats() == [(double.key_for(3), 3), ("key", 1)]


def test_writing_and_expired_entries_are_no_hits(
    anywhere: Cachetronaut, clock: ManualClock
) -> None:
    for _ in range(3):
        anywhere.set("key", 1, ttl=10)
    clock.advance(10)
    anywhere.get("key")
    assert anywhere.memory_stats() == anywhere.get_hot_keys() == []


@pytest.mark.parametrize("items", [0, 1, 100, None])
def test_counts_outlive_the_entry(open_cache: Callable[..., Cachetronaut], items: int) -> None:
    cache = open_cache(max_items_in_memory=items)
    cache.set_many({"a": 1, "b": 2})
    read(cache, a=2, b=1)
    cache.evict("a")
    cache.delete("b")
    read(cache, a=1)
    cache.clear_all()
    assert cache.memory_stats() == cache.get_hot_keys() == [("a", 3), ("b", 1)]


def test_the_log_says_when_and_by_whom(cache: Cachetronaut, clock: ManualClock) -> None:
    cache.set("key", 1)
    cache.get("key")
    clock.advance(100)
    cache.get("key")
    now = datetime.now(timezone.utc)
    (row,) = cache.store_stats()
    assert (row.key, row.access_count, row.last_accessed_by_profile) == ("key", 2, "default")
    assert abs(row.last_accessed - timedelta(seconds=100) - now) < timedelta(seconds=60)


COUNTER = """
import json, sys
from cachetronomy import Cachetronaut
cache = Cachetronaut(sys.argv[1])
for line in sys.stdin:
    count = json.loads(line)[0]
    for _ in range(count):
        assert cache.get("shared") == 1
        assert cache.get(sys.argv[2]) == 2
    print(json.dumps(cache.memory_stats()), flush=True)
cache.shutdown()
"""


def test_counts_of_several_processes_add_up(child: Callable[..., Child], db_path: Path) -> None:
    with Cachetronaut(db_path) as cache:
        cache.set_many({"shared": 1, "own0": 2, "own1": 2, "own2": 2})
        children: list[Any] = [child(COUNTER, db_path, f"own{n}") for n in range(3)]
        for number, one in enumerate(children):
            one.tell(number + 1)
        for number, one in enumerate(children):
            assert one.hear() == [[f"own{number}", number + 1], ["shared", number + 1]]
        for one in children:
            assert one.ask(10)
            assert one.end() == 0
        read(cache, shared=4)
        total = [("shared", 4 + 6 + 30), ("own2", 13), ("own1", 12), ("own0", 11)]
        assert cache.get_hot_keys() == total
        assert cache.memory_stats() == [("shared", 4)]
        assert {row.key: row.access_count for row in cache.store_stats()} == dict(total)
    with Cachetronaut(db_path) as later:
        assert later.get_hot_keys() == total
        assert later.memory_stats() == []


def test_counts_are_in_the_file_a_moment_later_without_a_flush(
    cache: Cachetronaut, db_path: Path, query: Callable[..., Any]
) -> None:
    cache.set("key", 1)
    read(cache, key=3)
    for _ in range(200):  # Each query starts a process: far longer together than the second due.
        if query(db_path, "SELECT key, access_count FROM access_log") == [["key", 3]]:
            break
    else:
        pytest.fail("the counts never arrived")
