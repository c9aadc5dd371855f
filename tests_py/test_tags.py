"""Entries are invalidated by tag: any of several, or exactly a set of them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from cachetronomy import Cachetronaut
from conftest import short_id

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cachetronomy._core import ManualClock
    from conftest import Tier

pytestmark = pytest.mark.both_clients


def fill(cache: Cachetronaut) -> None:
    """Four entries: tagged a, a and b, b, and not at all."""
    cache.set("a", 1, tags=["a"])
    cache.set("ab", 2, tags=["a", "b"])
    cache.set("b", 3, tags=("b",))
    cache.set("none", 4)


@pytest.mark.parametrize(
    ("tags", "removed"),
    [
        (["a"], ["a", "ab"]),
        ("b", ["ab", "b"]),
        (["a", "b"], ["a", "ab", "b"]),
        (("a", "a"), ["a", "ab"]),
        ({"b"}, ["ab", "b"]),
        (["missing"], []),
        ([], []),
    ],
    ids=str,
)
def test_any_of_the_tags_matches(
    cache: Cachetronaut, tier: Tier, tags: Any, removed: list[str]
) -> None:
    fill(cache)
    reader = tier(cache)
    reader.get_many(["a", "ab", "b", "none"])
    assert sorted(reader.clear_by_tags(tags)) == removed
    left = sorted({"a", "ab", "b", "none"} - set(removed))
    for client in (reader, cache):
        assert sorted(client.get_many(["a", "ab", "b", "none"])) == left
        assert sorted(client.all_keys()) == left
    assert sorted(reader.clear_by_tags(tags)) == []


@pytest.mark.parametrize(
    ("tags", "removed"),
    [
        (["a"], ["a"]),
        (["a", "b"], ["ab"]),
        (["b", "a"], ["ab"]),
        (["b", "a", "b"], ["ab"]),
        ("b", ["b"]),
        (["a", "b", "c"], []),
        ([], ["none"]),
    ],
    ids=str,
)
def test_an_exact_match_wants_the_whole_set_in_any_order(
    cache: Cachetronaut, tier: Tier, tags: Any, removed: list[str]
) -> None:
    fill(cache)
    reader = tier(cache)
    assert reader.clear_by_tags(tags, exact_match=True) == removed
    assert reader.clear_by_tags(tags, True) == []
    assert sorted(cache.all_keys()) == sorted({"a", "ab", "b", "none"} - set(removed))


def test_one_string_is_one_tag(anywhere: Cachetronaut) -> None:
    anywhere.set("one", 1, tags="news")
    anywhere.set_many({"two": 2}, tags="news")
    assert anywhere.clear_by_tags("n") == []
    assert sorted(anywhere.clear_by_tags("news", exact_match=True)) == ["one", "two"]


def test_tags_are_replaced_with_the_value(cache: Cachetronaut, tier: Tier) -> None:
    cache.set("key", 1, tags=["old"])
    cache.set("key", 2, tags=["new"])
    reader = tier(cache)
    assert reader.clear_by_tags("old") == []
    assert reader.get("key") == 2
    cache.set("key", 3)
    assert reader.clear_by_tags("new") == []
    assert reader.get("key") == 3


def test_tags_are_deleted_with_the_entry(
    cache: Cachetronaut, clock: ManualClock, db_path: Path, query: Callable[..., Any]
) -> None:
    for key in ("deleted", "expired", "many", "cleared"):
        cache.set(key, 1, ttl=10 if key == "expired" else None, tags=["t", key])
    cache.delete("deleted")
    cache.delete_many(["many"])
    clock.advance(10)
    cache.clear_expired()
    assert query(db_path, "SELECT DISTINCT key FROM cache_tag") == [["cleared"]]
    cache.clear_all()
    assert query(db_path, "SELECT count(*) FROM cache_tag") == [[0]]


def test_expired_entries_are_not_named_but_their_tags_go(
    cache: Cachetronaut, clock: ManualClock, db_path: Path, query: Callable[..., Any]
) -> None:
    cache.set("old", 1, ttl=1, tags=["t"])
    cache.set("young", 1, ttl=100, tags=["t"])
    clock.advance(1)
    assert cache.clear_by_tags("t") == ["young"]
    assert query(db_path, "SELECT key FROM cache UNION SELECT key FROM cache_tag") == []


@pytest.mark.parametrize(
    "tag", ["ü", "a b", '"', "\\", "[]", "%", "🏷", "x" * 1_000, "\0"], ids=ascii
)
def test_any_text_is_a_tag(cache: Cachetronaut, tier: Tier, tag: str) -> None:
    cache.set("key", 1, tags=[tag, "other"])
    cache.set("bystander", 1, tags=["other"])
    assert tier(cache).clear_by_tags([tag]) == ["key"]
    cache.set("key", 1, tags=[tag, "other"])
    assert tier(cache).clear_by_tags(["other", tag], exact_match=True) == ["key"]


def test_many_entries_under_one_tag(anywhere: Cachetronaut) -> None:
    anywhere.set_many({f"k{n}": n for n in range(3_000)}, tags=["t"])
    anywhere.set("other", 1, tags=["u"])
    assert len(anywhere.clear_by_tags("t")) == 3_000
    assert anywhere.all_keys() == ["other"]
    assert anywhere.memory_keys() == ["other"]


def test_another_client_no_longer_returns_what_was_cleared_by_tag(
    open_cache: Callable[..., Cachetronaut],
) -> None:
    one, two = open_cache(), open_cache()
    one.set("key", 1, tags=["t"])
    assert two.get("key") == 1
    assert one.clear_by_tags("t") == ["key"]
    assert two.get("key") is None
    assert two.memory_keys() == []


def test_tags_written_by_a_stranger_are_indexed(
    cache: Cachetronaut, db_path: Path, query: Callable[..., Any]
) -> None:
    """The original package writes whole rows with plain SQL."""
    row = ["theirs", '{"x":1}', "json", "9999-01-01T00:00:00+00:00", '["t","u"]', 1, "default"]
    for _ in range(2):
        query(
            db_path,
            "INSERT OR REPLACE INTO cache VALUES(?,?,?,?,?,?,?,NULL,NULL,NULL,NULL,NULL)",
            *row,
        )
    assert cache.get("theirs") == {"x": 1}
    assert cache.clear_by_tags(["u", "t"], exact_match=True) == ["theirs"]
    assert cache.get("theirs") is None


@pytest.mark.parametrize(
    "tags",
    [["a", "b"], ["\u00e9", "\U0001f600 \u2028"], ['"', "\\", "\n\x01\x7f"], []],
    ids=short_id,
)
def test_tags_are_written_to_the_letter_as_the_original_compares_them(
    cache: Cachetronaut, db_path: Path, query: Callable[..., Any], tags: list[str]
) -> None:
    cache.set("k", 1, tags=tags)
    cache.update_active_profile(tags=tags)
    assert query(db_path, "SELECT tags FROM cache") == [[json.dumps(tags)]]
    assert query(db_path, "SELECT tags FROM profiles") == [[json.dumps(tags)]]
    assert cache.key_metadata("k").tags == tags
