"""The memory tier: its cap, what leaves when it is full, and its truth beside other clients."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from cachetronomy import MISS, Cachetronaut

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.both_clients


def keys(count: int) -> list[str]:
    """Some keys."""
    return [f"k{number}" for number in range(count)]


def test_a_hundred_items_are_kept_by_default(anywhere: Cachetronaut) -> None:
    for number, key in enumerate(keys(250)):
        anywhere.set(key, number)
        assert len(anywhere.memory_keys()) == min(number + 1, 100)
    assert anywhere.stats()["evictions"] == {"capacity_eviction": 150}
    assert anywhere.get_many(keys(250)) == {f"k{n}": n for n in range(250)}
    assert len(anywhere.memory_keys()) == 100


@pytest.mark.parametrize("cap", [1, 2, 7, 1_000])
def test_the_cap_holds_and_the_store_keeps_all(
    open_cache: Callable[..., Cachetronaut], cap: int
) -> None:
    cache = open_cache(max_items_in_memory=cap)
    cache.set_many(dict.fromkeys(keys(1_500), 1))
    assert len(cache.memory_keys()) == cap
    assert set(cache.memory_keys()) <= set(keys(1_500))
    assert sorted(cache.store_keys()) == sorted(keys(1_500))
    assert all(cache.get(key) == 1 for key in keys(1_500))
    assert len(cache.memory_keys()) == cap
    assert cache.check() == []


def test_a_cap_of_nothing_keeps_nothing_in_memory(
    open_cache: Callable[..., Cachetronaut],
) -> None:
    cache = open_cache(max_items_in_memory=0)
    value = [1]
    cache.set("key", value)
    assert cache.memory_keys() == []
    first, second = cache.get("key"), cache.get("key")
    assert first == second == value
    assert first is not second
    stats = cache.stats()
    assert (stats["memory_hits"], stats["store_hits"]) == (0, 2)
    assert (stats["memory_keys"], stats["memory_bytes"]) == (0, 0)
    assert cache.get_hot_keys() == [("key", 2)]


def test_no_cap_keeps_everything(open_cache: Callable[..., Cachetronaut]) -> None:
    cache = open_cache(max_items_in_memory=None)
    cache.set_many(dict.fromkeys(keys(5_000), 1))
    assert len(cache.memory_keys()) == 5_000
    assert cache.stats()["evictions"] == {}


def test_a_scan_does_not_push_out_what_is_read_again_and_again(
    open_cache: Callable[..., Cachetronaut],
) -> None:
    cache = open_cache(max_items_in_memory=100)
    hot = keys(30)
    cache.set_many(dict.fromkeys(hot, 1))
    for _ in range(5):
        cache.get_many(hot)
    for number in range(3_000):
        cache.set(f"scan{number}", number)
    kept = set(cache.memory_keys())
    assert len(kept & set(hot)) >= 25


def test_a_get_brings_an_entry_back_into_memory(anywhere: Cachetronaut) -> None:
    anywhere.set_many(dict.fromkeys(keys(3), 1))
    anywhere.evict_all()
    anywhere.get("k0")
    anywhere.get("k1", promote=False)
    anywhere.get_many(["k2"])
    assert sorted(anywhere.memory_keys()) == keys(3)


def test_listing_memory_counts_no_hit_and_loads_nothing(anywhere: Cachetronaut) -> None:
    anywhere.set_many(dict.fromkeys(keys(3), 1))
    anywhere.evict("k0")
    for _ in range(3):
        assert sorted(anywhere.memory_keys()) == ["k1", "k2"]
    assert anywhere.memory_stats() == []


def test_two_clients_of_one_process_see_each_other_at_once(
    open_cache: Callable[..., Cachetronaut],
) -> None:
    one, two = open_cache(), open_cache()
    for number in range(300):
        writer, reader = (one, two) if number % 2 else (two, one)
        writer.set("key", number)
        assert reader.get("key") == number
        assert writer.get("key") == number
        if number % 5 == 0:
            assert writer.delete("key") is True
            assert reader.get("key", default=MISS) is MISS
            assert reader.memory_keys() == []


@pytest.mark.parametrize("how", ["set", "set_many", "delete", "delete_many", "clear_all", "tags"])
def test_no_kind_of_change_by_another_client_is_overlooked(
    open_cache: Callable[..., Cachetronaut], how: str
) -> None:
    one, two = open_cache(), open_cache()
    one.set("key", "old", tags=["t"])
    one.set("bystander", "stays", tags=["u"])
    assert two.get_many(["key", "bystander"]) == {"key": "old", "bystander": "stays"}
    acts: dict[str, Callable[[], object]] = {
        "set": lambda: one.set("key", "new"),
        "set_many": lambda: one.set_many({"key": "new"}),
        "delete": lambda: one.delete("key"),
        "delete_many": lambda: one.delete_many(["key"]),
        "clear_all": one.clear_all,
        "tags": lambda: one.clear_by_tags("t"),
    }
    acts[how]()
    expected = "new" if how.startswith("set") else None
    assert two.get("key") == one.get("key") == expected
    assert two.get("bystander") == (None if how == "clear_all" else "stays")


def test_eviction_in_one_client_is_its_own_matter(
    open_cache: Callable[..., Cachetronaut],
) -> None:
    one, two = open_cache(), open_cache()
    one.set("key", 1)
    assert two.get("key") == 1
    one.evict_all()
    assert (one.memory_keys(), two.memory_keys()) == ([], ["key"])


def test_own_writes_leave_other_entries_in_memory(anywhere: Cachetronaut) -> None:
    """Each commit moves the file's state; entries of other keys are served from memory still."""
    anywhere.set_many(dict.fromkeys(keys(50), 1))
    anywhere.get_many(keys(50))
    before = anywhere.stats()["store_hits"]
    for number in range(100):
        anywhere.set("other", number)
        anywhere.get(f"k{number % 50}")
    # A key may share its slot with the written one: one in 65,536.
    assert anywhere.stats()["store_hits"] - before <= 10


def test_an_old_version_in_memory_does_not_hide_a_new_one(
    open_cache: Callable[..., Cachetronaut],
) -> None:
    one, two = open_cache(), open_cache()
    one.set("key", "v1", version=1)
    assert two.get("key", version=1) == "v1"
    one.set("key", "v2", version=2)
    assert two.get("key", version=1) is None
    assert two.get("key", version=2) == "v2"
