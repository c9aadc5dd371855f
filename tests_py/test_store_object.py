"""`client.store`, and a store opened alone: the original package's class over the same file."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from cachetronomy import (
    CacheClosedError,
    Cachetronaut,
    InvalidKeyError,
    InvalidSettingError,
    Profile,
)
from cachetronomy.core.store.sqlite.synchronous import SQLiteStore
from cachetronomy.core.types.schemas import CacheEntry, CacheMetadata, CustomQuery
from pydantic import BaseModel, ValidationError

pytestmark = pytest.mark.both_clients


LATER = datetime(2190, 1, 2, 3, 4, 5, 678901, tzinfo=timezone.utc)


def entry(key: str = "key", data: Any = b"[1, 2]", **fields: Any) -> CacheEntry:
    fields = {"fmt": "json", "expire_at": LATER, "tags": [], "saved_by_profile": "p", **fields}
    return CacheEntry(key=key, data=data, **fields)


@pytest.fixture(params=["client's", "client's in memory", "alone"])
def store(
    request: pytest.FixtureRequest, open_cache: Callable[..., Cachetronaut], db_path: Path
) -> Iterator[SQLiteStore]:
    """Take the store of a client, or one that is opened alone."""
    if request.param == "alone":
        with SQLiteStore(db_path) as alone:
            yield alone
    else:
        yield open_cache(*[":memory:"] * ("memory" in request.param)).store


def test_an_entry_comes_back_as_it_was_set(store: SQLiteStore) -> None:
    given = entry(tags=["b", "a"], version=3)
    assert store.set(given) == given
    assert store.get("key") == given
    assert store.get("missing") is None
    assert store.keys() == ["key"]
    assert store.count() == 1


def test_times_come_back_in_utc(store: SQLiteStore) -> None:
    store.set(entry("naive", expire_at=LATER.replace(tzinfo=None)))
    store.set(entry("east", expire_at=LATER.astimezone(timezone(timedelta(hours=5)))))
    for key in ("naive", "east"):
        found = store.get(key)
        assert found is not None
        assert found.expire_at == LATER
        assert found.expire_at.tzinfo is timezone.utc


def test_data_has_to_be_bytes(store: SQLiteStore) -> None:
    for data in (5, None, [1]):
        with pytest.raises(InvalidSettingError, match="data"):
            store.set(entry(data=data))
    assert store.keys() == []


def test_entries_are_listed_with_and_without_data(store: SQLiteStore) -> None:
    for number in range(3):
        store.set(entry(f"k{number}", data=str(number).encode(), tags=["t"]))
    assert sorted((one.key, one.data) for one in store.items()) == [
        ("k0", b"0"),
        ("k1", b"1"),
        ("k2", b"2"),
    ]
    assert len(store.items(2)) == len(store.items(limit=2)) == 2
    metadata = store.metadata()
    assert sorted(one.key for one in metadata) == ["k0", "k1", "k2"]
    assert {type(one) for one in metadata} == {CacheMetadata}
    assert store.key_metadata("k1") == CacheMetadata(
        **entry("k1", tags=["t"]).model_dump(exclude={"data"})
    )
    assert store.key_metadata("missing") is None


def test_entries_are_deleted(store: SQLiteStore) -> None:
    for key in "abcd":
        store.set(entry(key, saved_by_profile="p" if key < "c" else "q"))
    assert store.delete("a") is True
    assert store.delete("a") is False
    assert store.clear_by_profile("p") == ["b"]
    store.clear_all()
    assert store.keys() == []


def test_entries_are_found_and_cleared_by_tags(store: SQLiteStore) -> None:
    for key, tags in {"a": ["x"], "b": ["x", "y"], "c": ["y"], "d": []}.items():
        store.set(entry(key, tags=tags))
    assert sorted(store.get_keys_by_tags(["x"])) == ["a", "b"]
    assert store.get_keys_by_tags(["y", "x"], exact_match=True) == ["b"]
    assert store.get_keys_by_tags(["y", "x"], True) == store.clear_by_tags(["x", "y"], True)
    assert sorted(store.clear_by_tags("x")) == ["a"]
    assert sorted(store.keys()) == ["c", "d"]


def test_expired_entries_are_not_served_and_are_cleared(store: SQLiteStore) -> None:
    past = datetime(2001, 2, 3, tzinfo=timezone.utc)
    store.set(entry("old", expire_at=past))
    store.set(entry("new"))
    assert store.get("old") is store.key_metadata("old") is None
    assert store.keys() == ["new"]
    assert store.count() == 1
    assert [(one.key, one.expire_at) for one in store.clear_expired()] == [("old", past)]
    assert store.clear_expired() == []


def test_the_client_sees_at_once_what_its_store_does(anywhere: Cachetronaut) -> None:
    anywhere.set("key", "old")
    assert anywhere.get("key") == "old"
    anywhere.store.set(entry(data=b'"new"'))
    assert anywhere.get("key") == "new"
    assert anywhere.store.delete("key") is True
    assert anywhere.get("key") is None
    anywhere.set("key", 1, tags=["t"])
    assert anywhere.get("key") == 1
    anywhere.store.clear_by_tags(["t"])
    assert anywhere.get("key") is None
    anywhere.set("key", 1)
    anywhere.store.clear_all()
    assert anywhere.memory_keys() == anywhere.store_keys() == []


def test_a_store_has_what_the_client_set(anywhere: Cachetronaut) -> None:
    anywhere.set("key", [1, 2], ttl=60, tags=["t"], version=2)
    found = anywhere.store.get("key")
    assert found is not None
    assert (found.fmt, found.tags, found.version) == ("json", ["t"], 2)
    assert found.data.replace(b" ", b"") == b"[1,2]"
    (with_value,) = anywhere.items()
    assert with_value == found.model_copy(update={"data": [1, 2]})
    assert anywhere.key_metadata("key") == anywhere.store_metadata()[0]
    assert anywhere.items(0) == []


def test_there_is_one_store_of_a_client(cache: Cachetronaut) -> None:
    assert cache.store is cache.store
    assert cache.store.db_path == cache.db_path


def test_a_store_keeps_its_client_and_not_the_other_way_round(db_path: Path) -> None:
    gc.disable()
    try:
        cache = Cachetronaut(db_path)
        known = weakref.ref(cache)
        store = cache.store
        del cache
        assert store.keys() == []
        del store
        assert known() is None, "freed at once, with no collection of cycles"
    finally:
        gc.enable()


def test_closing_a_clients_store_closes_the_client(cache: Cachetronaut) -> None:
    store = cache.store
    store.close()
    store.close()
    for call in (cache.store_keys, store.keys, store.count, store.metadata, store.__enter__):
        with pytest.raises(CacheClosedError):
            call()


def test_a_store_alone_evicts_nothing_by_itself(db_path: Path) -> None:
    with SQLiteStore(db_path, loop=None) as store:
        assert store._client.memory_keys() == []
        assert store._client._profile()["ttl_cleanup_interval"] == 0
        profile = store.profile("default")
    assert profile == Profile(name="default"), "and does not store that it does not"


def test_profiles_are_stored_by_keyword_and_position(store: SQLiteStore) -> None:
    store.update_profile_settings("p", 7, ["t"], 8, False, 0.5, 9, 10)
    expected = Profile(
        name="p",
        time_to_live=7,
        tags=["t"],
        ttl_cleanup_interval=8,
        memory_based_eviction=False,
        free_memory_target=0.5,
        memory_cleanup_interval=9,
        max_items_in_memory=10,
    )
    assert store.profile("p") == expected
    store.update_profile_settings(**Profile(name="q").model_dump())
    store.update_profile_settings(name="q", time_to_live=5)
    assert store.profile("q") == Profile(name="q", time_to_live=5)
    assert [profile.name for profile in store.list_profiles()] == ["default", "p", "q"]
    with pytest.raises(InvalidSettingError, match="time_to_live"):
        store.update_profile_settings(name="q", time_to_live=-5)
    assert store.delete_profile("q") is True
    assert store.delete_profile("q") is False
    assert store.profile("q") is None


def test_values_of_the_command_line_are_kept(store: SQLiteStore) -> None:
    assert store.get_config("active_profile") == ("default", store.db_path)
    store.set_config("active_profile", "p", "elsewhere.db")
    assert store.get_config("active_profile") == ("p", "elsewhere.db")
    store.set_config("active_profile", "q", None)
    assert store.get_config("active_profile") == ("q", store.db_path)


class Row(BaseModel):
    """What a caller makes of rows."""

    key: str
    tags: list[str] = []
    expire_at: datetime | None = None


def test_a_query_gives_dicts(store: SQLiteStore) -> None:
    store.set(entry("a", tags=["x", "y"]))
    store.set(entry("b"))
    query = CustomQuery(query="SELECT key, tags, expire_at, version FROM cache ORDER BY key")
    assert store.custom_query(query) == [
        {"key": "a", "tags": ["x", "y"], "expire_at": LATER, "version": 1},
        {"key": "b", "tags": [], "expire_at": LATER, "version": 1},
    ]
    query = CustomQuery(query="SELECT count(*) AS n FROM cache WHERE key > ?", params=("a",))
    assert store.custom_query(query) == [{"n": 1}]
    query = CustomQuery(query="SELECT 'no json' AS tags, 'no time' AS expire_at, NULL AS x")
    assert store.custom_query(query) == [{"tags": "no json", "expire_at": "no time", "x": None}]
    assert store.custom_query(CustomQuery(query="SELECT 1 WHERE 0")) == []


def test_a_query_makes_models(store: SQLiteStore) -> None:
    store.set(entry("a", tags=["x"]))
    query = CustomQuery(query="SELECT key, tags FROM cache", schema_type=Row)
    assert store.custom_query(query) == [Row(key="a", tags=["x"])]
    query = CustomQuery(query="SELECT * FROM cache", schema_type=CacheEntry)
    (found,) = store.custom_query(query)
    assert found == entry("a", tags=["x"])
    query = CustomQuery(query="SELECT 1 AS key", schema_type=Row)
    with pytest.raises(ValidationError, match="key"):
        store.custom_query(query)


def test_a_query_that_writes_gives_a_number_and_is_seen(cache: Cachetronaut) -> None:
    cache.set_many({"a": 1, "b": 2, "c": 3})
    assert cache.get("a") == 1
    query = CustomQuery(query="DELETE FROM cache WHERE key < ?", params=["c"], autocommit=True)
    assert cache.store.custom_query(query) == 2
    assert cache.get("a") is None
    assert cache.store_keys() == ["c"]


def test_a_query_that_is_none_raises_and_changes_nothing(store: SQLiteStore) -> None:
    store.set(entry())
    for sql in ("SELEKT 1", "SELECT * FROM nowhere", ""):
        with pytest.raises(Exception, match=r"."):
            store.custom_query(CustomQuery(query=sql))
    assert store.keys() == ["key"]


def test_keys_have_to_be_text(store: SQLiteStore) -> None:
    for call in (
        store.get,
        store.delete,
        store.key_metadata,
        store.key_access_logs,
        store.delete_access_logs,
    ):
        for key in (None, 5, b"key"):
            with pytest.raises(InvalidKeyError):
                call(key)


def test_parameters_may_be_datetimes_and_odd_ones_are_named(cache: Cachetronaut) -> None:
    cache.set("a", 1, ttl=60)
    cache.set("b", 1, ttl=6_000)
    limit = cache.key_metadata("a").expire_at + timedelta(seconds=1)
    query = CustomQuery(query="SELECT key FROM cache WHERE expire_at < ?", params=[limit])
    assert cache.store.custom_query(query) == [{"key": "a"}]
    for odd in (2**63, object()):
        with pytest.raises((InvalidSettingError, TypeError), match="query"):
            cache.store.custom_query(CustomQuery(query="SELECT ?", params=[odd]))
    with pytest.raises(InvalidSettingError, match="CustomQuery"):
        cache.store.custom_query("SELECT 1")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "sql",
    [
        "CREATE TEMP TABLE cache(key, data)",
        "PRAGMA query_only=ON",
        "PRAGMA hard_heap_limit=1",
        "ATTACH ':memory:' AS other",
        "BEGIN",
    ],
)
def test_no_statement_changes_the_connection_for_those_after_it(
    anywhere: Cachetronaut, sql: str
) -> None:
    for autocommit in (False, True):
        with pytest.raises(InvalidSettingError, match="connection"):
            anywhere.store.custom_query(CustomQuery(query=sql, autocommit=autocommit))
    anywhere.set("a", 1)
    anywhere.evict_all()
    assert anywhere.get("a") == 1


def test_text_of_the_original_is_taken_for_bytes(cache: Cachetronaut) -> None:
    moment = datetime.now(timezone.utc) + timedelta(hours=1)
    cache.store.set(CacheEntry(key="a", data="[1]", expire_at=moment, saved_by_profile="p"))
    assert cache.get("a") == [1]
