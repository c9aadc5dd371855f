"""What is set is got, from either tier, until it is replaced or deleted."""

from __future__ import annotations

import collections
import os
import stat
import types
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pydantic
import pytest
from cachetronomy import MISS, Cachetronaut

if TYPE_CHECKING:
    from collections.abc import Callable
    from subprocess import CompletedProcess

    from conftest import Tier

pytestmark = pytest.mark.both_clients


VALUES = [None, False, 0, "", [], {}, 1, 1.5, "text", b"bytes", (1, (2,)), {"a": [1, {"b": None}]}]
ODD_KEYS = ["", " ", "ключ", "a\0b", "🗝", "x" * 10_000, "'; DROP TABLE cache; --", "%", "*", "\n"]


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_a_value_comes_back_equal_and_of_its_type(
    cache: Cachetronaut, tier: Tier, value: object
) -> None:
    cache.set("key", value)
    got = tier(cache).get("key", default=MISS)
    assert got == value
    assert type(got) is type(value)


@pytest.mark.parametrize("key", ODD_KEYS, ids=ascii)
def test_any_text_is_a_key(cache: Cachetronaut, tier: Tier, key: str) -> None:
    cache.set(key, "value")
    cache.set("another", "other")
    reader = tier(cache)
    assert reader.get(key) == "value"
    assert reader.get_many([key]) == {key: "value"}
    assert sorted(reader.store_keys()) == sorted([key, "another"])
    assert reader.delete(key) is True
    assert reader.all_keys() == ["another"]


def test_a_miss_gives_the_default(anywhere: Cachetronaut) -> None:
    assert anywhere.get("missing") is None
    assert anywhere.get("missing", default=7) == 7
    assert anywhere.get("missing", None, True, 8) == 8
    assert anywhere.get("missing", default=MISS) is MISS


def test_a_stored_none_is_not_a_miss(cache: Cachetronaut, tier: Tier) -> None:
    cache.set("key", None)
    reader = tier(cache)
    assert reader.get("key", default=1) is None
    assert reader.get_many(["key", "missing"]) == {"key": None}


def test_memory_returns_the_very_object(anywhere: Cachetronaut) -> None:
    value = [1, 2]
    anywhere.set("key", value)
    assert anywhere.get("key") is value
    anywhere.evict("key")
    again = anywhere.get("key")
    assert again == value
    assert again is not value
    assert anywhere.get("key") is again


def test_the_last_value_wins(cache: Cachetronaut, tier: Tier) -> None:
    for value in range(5):
        assert cache.set("key", value) is None
    cache.set("key", "last", tags=["t"])
    assert tier(cache).get("key") == "last"


def test_delete_says_whether_the_key_existed(cache: Cachetronaut, tier: Tier) -> None:
    cache.set("key", 1)
    reader = tier(cache)
    assert reader.delete("key") is True
    assert reader.delete("key") is False
    assert reader.get("key", default=MISS) is MISS
    assert cache.get("key", default=MISS) is MISS
    assert (cache.store_keys(), cache.memory_keys(), cache.all_keys()) == ([], [], [])


def test_many_keys_are_read_at_once_from_both_tiers(anywhere: Cachetronaut) -> None:
    anywhere.set_many({f"k{n}": n for n in range(10)})
    for n in range(0, 10, 2):
        anywhere.evict(f"k{n}")
    wanted = ["k3", "missing", "k4", "k3"]
    assert anywhere.get_many(wanted) == {"k3": 3, "k4": 4}
    assert anywhere.get_many(f"k{n}" for n in (1, 2)) == {"k1": 1, "k2": 2}
    assert anywhere.get_many([]) == {}
    assert anywhere.get_many(("k9",)) == {"k9": 9}


def test_many_keys_are_written_at_once(cache: Cachetronaut, tier: Tier) -> None:
    assert cache.set_many({"a": 1, "b": 2}, time_to_live=60, version=2, tags=["t"]) is None
    cache.set_many(types.MappingProxyType({"c": 3}))
    cache.set_many(collections.OrderedDict(d=4))
    cache.set_many({})
    cache.set_many(items={"e": 5}, ttl=60)
    reader = tier(cache)
    assert reader.get_many(list("abcde")) == {"a": 1, "b": 2, "c": 3, "d": 4, "e": 5}
    assert reader.get("a", version=2) == 1
    assert sorted(reader.clear_by_tags("t")) == ["a", "b"]


def test_many_keys_are_deleted_at_once_and_counted(anywhere: Cachetronaut) -> None:
    anywhere.set_many({"a": 1, "b": 2, "c": 3})
    assert anywhere.delete_many(["a", "missing", "b", "a"]) == 2
    assert anywhere.delete_many([]) == 0
    assert anywhere.all_keys() == ["c"]


def test_set_many_is_all_or_nothing(anywhere: Cachetronaut) -> None:
    anywhere.set("a", "old")
    with pytest.raises(ValueError, match='"b"'):
        anywhere.set_many({"a": "new", "b": object()})
    assert anywhere.get("a") == "old"
    assert anywhere.all_keys() == ["a"]


def test_another_version_is_a_miss(cache: Cachetronaut, tier: Tier) -> None:
    cache.set("key", "v2", version=2)
    reader = tier(cache)
    assert reader.get("key", version=1) is None
    assert reader.get("key", version=3, default="default") == "default"
    assert reader.get("key", version=2) == "v2"
    assert reader.get("key") == "v2"
    assert cache.all_keys() == ["key"]


def test_the_version_is_1_unless_given_and_replaced_with_the_value(
    cache: Cachetronaut, tier: Tier
) -> None:
    cache.set("key", "a", version=5)
    cache.set("key", "b")
    reader = tier(cache)
    assert reader.get("key", version=5) is None
    assert reader.get("key", version=1) == "b"


@pytest.mark.parametrize(
    ("prefer", "label"),
    [
        (None, "json"),
        ("json", "json"),
        ("orjson", "orjson"),
        ("msgpack", "msgpack"),
        ("cachetronomy", "cachetronomy"),
    ],
)
def test_a_preferred_format_is_in_the_file(
    cache: Cachetronaut, db_path: Path, query: Callable[..., Any], prefer: str, label: str
) -> None:
    cache.set("one", [1], prefer=prefer)
    cache.set_many({"two": [2]}, prefer=prefer)
    cache.evict_all()
    assert cache.get_many(["one", "two"]) == {"one": [1], "two": [2]}
    cache.close()
    assert query(db_path, "SELECT key, fmt FROM cache ORDER BY key") == [
        ["one", label],
        ["two", label],
    ]


class Point(pydantic.BaseModel):
    """A caller's model."""

    x: int
    y: int = 0


def test_a_model_shapes_the_value(cache: Cachetronaut, tier: Tier) -> None:
    cache.set("point", {"x": 1, "y": 2})
    cache.set("numbers", ["1", 2])
    reader = tier(cache)
    assert reader.get("point", model=Point) == Point(x=1, y=2)
    assert reader.get("point", Point) == Point(x=1, y=2)
    assert reader.get("numbers", model=list[int]) == [1, 2]
    assert reader.get("missing", model=Point) is None
    assert reader.get("missing", model=Point, default=3) == 3


def test_a_value_that_does_not_fit_the_model_is_an_error(cache: Cachetronaut, tier: Tier) -> None:
    cache.set("point", {"x": "no number"})
    reader = tier(cache)
    with pytest.raises(pydantic.ValidationError, match="x"):
        reader.get("point", model=Point)
    assert reader.get("point") == {"x": "no number"}


def test_evict_leaves_the_store(anywhere: Cachetronaut) -> None:
    anywhere.set_many({"a": 1, "b": 2})
    assert sorted(anywhere.memory_keys()) == ["a", "b"]
    assert anywhere.evict("a") is None
    anywhere.evict("missing")
    assert anywhere.memory_keys() == ["b"]
    assert sorted(anywhere.store_keys()) == sorted(anywhere.all_keys()) == ["a", "b"]
    assert anywhere.get("a") == 1
    assert sorted(anywhere.memory_keys()) == ["a", "b"]
    assert anywhere.evict_all() is None
    assert anywhere.memory_keys() == []
    assert sorted(anywhere.all_keys()) == ["a", "b"]


def test_clear_all_empties_both_tiers(anywhere: Cachetronaut) -> None:
    anywhere.set_many({f"k{n}": n for n in range(300)}, tags=["t"])
    assert anywhere.clear_all() is None
    assert (anywhere.store_keys(), anywhere.memory_keys(), anywhere.all_keys()) == ([], [], [])
    assert anywhere.get_many(f"k{n}" for n in range(300)) == {}
    assert anywhere.clear_by_tags("t") == []
    anywhere.set("k0", "new")
    assert anywhere.get("k0") == "new"


def test_no_list_of_keys_names_a_key_twice(anywhere: Cachetronaut) -> None:
    for _ in range(3):
        anywhere.set("a", 1)
        anywhere.get("a")
    assert anywhere.store_keys() == anywhere.memory_keys() == anywhere.all_keys() == ["a"]


def test_everything_outlives_the_client(db_path: Path) -> None:
    with Cachetronaut(db_path=db_path) as first:
        first.set_many({f"k{n}": n for n in range(1_000)})
    with Cachetronaut(db_path=str(db_path)) as second:
        assert second.get_many(f"k{n}" for n in range(1_000)) == {f"k{n}": n for n in range(1_000)}
        assert second.check() == []


def test_memory_stores_are_private(open_cache: Callable[..., Cachetronaut]) -> None:
    one, two = open_cache(":memory:"), open_cache(":memory:")
    one.set("key", 1)
    assert two.get("key", default=MISS) is MISS
    assert not Path(":memory:").exists()


def test_missing_folders_are_made(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b c" / "d.db"
    with Cachetronaut(db_path=path) as cache:
        cache.set("key", 1)
    assert path.is_file()


def test_the_home_folder_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    with Cachetronaut("~/folder/cache.db") as cache:
        cache.set("key", 1)
    assert (tmp_path / "folder" / "cache.db").is_file()


def test_a_path_like_a_url_of_sqlite_is_a_plain_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with Cachetronaut("file:cache.db?mode=memory") as cache:
        cache.set("key", 1)
    assert (tmp_path / "file:cache.db?mode=memory").is_file()


def test_the_file_is_in_the_current_folder_unless_named(
    tmp_path: Path, run_python: Callable[..., CompletedProcess[str]]
) -> None:
    run_python("import cachetronomy; cachetronomy.Cachetronaut().set('key', 1)")
    assert (tmp_path / "cachetronomy.db").is_file()


@pytest.mark.skipif(os.name != "posix", reason="permission bits")
def test_the_files_are_their_owners_alone(cache: Cachetronaut, db_path: Path) -> None:
    cache.set("key", 1)
    files = sorted(db_path.parent.glob("cache.db*"))
    assert len(files) == 3
    assert [stat.S_IMODE(file.stat().st_mode) for file in files] == [0o600] * 3


def test_closing_twice_is_once(db_path: Path) -> None:
    cache = Cachetronaut(db_path=db_path)
    with cache as entered:
        assert entered is cache
        cache.set("key", 1)
    cache.close()
    cache.shutdown()
    with Cachetronaut(db_path=db_path) as again:
        assert again.get("key") == 1


def test_an_exception_passes_through_with_and_closes(db_path: Path) -> None:
    cache = Cachetronaut(db_path=db_path)
    with pytest.raises(KeyError, match="mine"), cache:
        raise KeyError("mine")
    assert "closed" in repr(cache)


def test_the_repr_names_the_file(cache: Cachetronaut, db_path: Path) -> None:
    assert str(db_path) in repr(cache)


def test_large_values_come_back(cache: Cachetronaut, tier: Tier) -> None:
    value = {"blob": os.urandom(3_000_000), "list": list(range(100_000))}
    cache.set("key", value)
    assert tier(cache).get("key") == value
