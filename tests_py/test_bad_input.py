"""What cannot be right is refused with a clear, typed error, before anything changes."""

from __future__ import annotations

import contextlib
import math
import os
import tempfile
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from cachetronomy import (
    CacheClosedError,
    Cachetronaut,
    CachetronomyError,
    CorruptStoreError,
    InvalidKeyError,
    InvalidSettingError,
    SerializationError,
    StoreUnavailableError,
)
from conftest import short_id

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from subprocess import CompletedProcess

pytestmark = pytest.mark.both_clients


@pytest.fixture
def unchanged(anywhere: Cachetronaut) -> Iterator[Cachetronaut]:
    """Hold one entry, which must be all there is when the test has ended."""
    anywhere.set("key", "old", ttl=60, version=2, tags=["t"])
    anywhere.flush()
    before = anywhere.stats()
    yield anywhere
    assert anywhere.all_keys() == anywhere.memory_keys() == ["key"]
    after = anywhere.stats()
    assert {name: after[name] for name in ("sets", "evictions", "store_keys", "memory_bytes")} == {
        name: before[name] for name in ("sets", "evictions", "store_keys", "memory_bytes")
    }
    assert anywhere.get("key", version=2) == "old"
    assert anywhere.clear_by_tags(["t"], exact_match=True) == ["key"]


KEY_ACTS: dict[str, Any] = {
    "get": lambda cache, key: cache.get(key),
    "set": lambda cache, key: cache.set(key, 1),
    "delete": lambda cache, key: cache.delete(key),
    "evict": lambda cache, key: cache.evict(key),
    "get_many": lambda cache, key: cache.get_many(["key", key]),
    "set_many": lambda cache, key: cache.set_many({"key": "new", key: 1}),
    "delete_many": lambda cache, key: cache.delete_many(["key", key]),
}


@pytest.mark.parametrize("act", KEY_ACTS.values(), ids=KEY_ACTS)
@pytest.mark.parametrize("key", [7, None, b"bytes", 1.5, ("a",), Path("p"), "\ud800"], ids=ascii)
def test_a_key_that_is_not_text(unchanged: Cachetronaut, act: Any, key: object) -> None:
    with pytest.raises(InvalidKeyError) as caught:
        act(unchanged, key)
    assert isinstance(caught.value, TypeError)
    assert repr(key) in str(caught.value)


@pytest.mark.parametrize("act", ["get_many", "delete_many"])
def test_one_text_is_not_a_list_of_keys(unchanged: Cachetronaut, act: str) -> None:
    with pytest.raises(InvalidKeyError, match="not one str: 'key'"):
        getattr(unchanged, act)("key")


PUTS: dict[str, Any] = {
    "set": lambda cache, options: cache.set("key", "new", **options),
    "set_many": lambda cache, options: cache.set_many({"key": "new", "more": 1}, **options),
    "decorator": lambda cache, options: cache(**options),
}
NO_LIFE: list[Any] = [-1, -0.001, math.nan, -math.inf, timedelta(-1), -(10**400)]
NO_LIFE += ["", "1", "-1s", "1.5h", "1h 30m", "h", "1w", "s1", "9" * 30 + "d", "one hour"]
NO_LIFE += [True, [], b"1h", {}, object(), 1j]
WRONG: list[tuple[str, Any]] = [("ttl", life) for life in NO_LIFE]
WRONG += [("time_to_live", life) for life in NO_LIFE[:4]]
WRONG += [("version", version) for version in (0, -1, True, 1.0, "1", 2**63, 2**70, [])]
WRONG += [("tags", tags) for tags in ("", [""], ["a", ""], 5, [1], ["a", None], b"t", ["\ud800"])]
WRONG += [("prefer", name) for name in ("pickle", "", "JSON", "yaml")]


@pytest.mark.parametrize("put", PUTS.values(), ids=PUTS)
@pytest.mark.parametrize(("name", "value"), WRONG, ids=short_id)
def test_an_option_out_of_range(
    unchanged: Cachetronaut, put: Any, name: str, value: object
) -> None:
    with pytest.raises(InvalidSettingError) as caught:
        put(unchanged, {name: value})
    assert isinstance(caught.value, ValueError)
    assert str(caught.value).startswith("time_to_live" if name == "ttl" else name)


@pytest.mark.parametrize("put", PUTS.values(), ids=PUTS)
def test_a_life_given_twice(unchanged: Cachetronaut, put: Any) -> None:
    with pytest.raises(TypeError, match="ttl and time_to_live are two names"):
        put(unchanged, {"ttl": 1, "time_to_live": 1})


@pytest.mark.parametrize("put", PUTS.values(), ids=PUTS)
def test_an_unknown_option(unchanged: Cachetronaut, put: Any) -> None:
    with pytest.raises(TypeError, match="lifetime"):
        put(unchanged, {"lifetime": 1})


@pytest.mark.parametrize("tags", [None, "", [""], 5, ["t", 1]], ids=str)
@pytest.mark.parametrize("exact", [True, False])
def test_tags_to_clear_that_are_no_tags(unchanged: Cachetronaut, tags: Any, exact: bool) -> None:
    with pytest.raises(InvalidSettingError, match="tags"):
        unchanged.clear_by_tags(tags, exact_match=exact)


@pytest.mark.parametrize("version", [0, -1, True, 1.0, "1", 2**70], ids=repr)
def test_a_version_to_get_that_is_none(unchanged: Cachetronaut, version: Any) -> None:
    with pytest.raises(InvalidSettingError, match="version"):
        unchanged.get("key", version=version)


def circle() -> list[object]:
    """Make a list that holds itself."""
    endless: list[object] = []
    endless.append(endless)
    return endless


UNSTORABLE = [object(), lambda: 1, iter([1]), [1, {"a": object()}], circle(), open, ..., type]


@pytest.mark.parametrize("value", UNSTORABLE, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("key", ["key", "another"])
def test_a_value_that_cannot_be_stored(unchanged: Cachetronaut, key: str, value: object) -> None:
    with pytest.raises(SerializationError, match=f'key "{key}"') as caught:
        unchanged.set(key, value)
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, TypeError)
    with pytest.raises(SerializationError, match=f'key "{key}"'):
        unchanged.set_many({"first": 1, key: value})


def test_a_generator_function_under_the_decorator(unchanged: Cachetronaut) -> None:
    def generator() -> Iterator[int]:
        yield 1

    async def asynchronous() -> Any:
        yield 1

    for function in (generator, asynchronous):
        for decorator in (unchanged, unchanged(ttl=1)):
            with pytest.raises(TypeError, match=f"{function.__name__} is a generator function"):
                decorator(function)


SETTINGS: list[tuple[str, Any]] = [
    *(("max_items_in_memory", value) for value in (-1, 1.5, "9", [], math.inf, 2**70)),
    *(("busy_timeout", value) for value in (-1, math.nan, math.inf, -0.5, 1e7, 1e300)),
    *(("busy_timeout", value) for value in ("5s", True, [])),
    *(("db_path", value) for value in ("", "a\0b", "redis://localhost", "http://x/y", b"bytes")),
]


@pytest.mark.parametrize(("name", "value"), SETTINGS, ids=short_id)
def test_a_setting_out_of_range(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: object
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = {"db_path": "cache.db", name: value}
    if name == "busy_timeout" and value == 1e7:
        # Four months: to take it or to refuse it is right, but nothing else.
        with contextlib.suppress(InvalidSettingError):
            Cachetronaut(**settings).close()
        return
    with pytest.raises(InvalidSettingError, match=name) as caught:
        Cachetronaut(**settings)
    assert isinstance(caught.value, ValueError)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", [7, 1.5, [], object()], ids=lambda value: type(value).__name__)
def test_a_db_path_that_is_no_path(path: object) -> None:
    with pytest.raises(InvalidSettingError, match="db_path"):
        Cachetronaut(path)


def test_an_unknown_setting(db_path: Path) -> None:
    with pytest.raises(TypeError, match="max_item"):
        Cachetronaut(db_path, max_item=1)
    assert not db_path.exists()


def test_a_db_path_that_is_a_folder(tmp_path: Path) -> None:
    with pytest.raises(InvalidSettingError, match="is a folder") as caught:
        Cachetronaut(db_path=tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert isinstance(caught.value, ValueError)
    assert list(tmp_path.iterdir()) == []


def test_a_db_path_inside_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("text")
    path = tmp_path / "file" / "cache.db"
    with pytest.raises(StoreUnavailableError) as caught:
        Cachetronaut(path)
    assert str(path) in str(caught.value)
    assert isinstance(caught.value, ConnectionError)
    assert (tmp_path / "file").read_text() == "text"


NO_DATABASES = {
    "short": b"hello",
    "a page of text": b"hello, world\n" * 1_000,
    "zeros": bytes(10_000),
    "a header and no more": b"SQLite format 3\0" + b"\xff" * 5_000,
    "one byte": b"x",
    "a picture": b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 40,
}


@pytest.mark.parametrize("content", NO_DATABASES.values(), ids=NO_DATABASES)
def test_a_file_that_is_not_a_database(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "cache.db"
    path.write_bytes(content)
    with pytest.raises(CorruptStoreError) as caught:
        Cachetronaut(path)
    assert str(path) in str(caught.value)
    assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("schema", ["CREATE TABLE mine(x)", "CREATE TABLE cache(key TEXT, x)"])
def test_a_database_of_another_program(
    tmp_path: Path, query: Callable[..., Any], schema: str
) -> None:
    path = tmp_path / "cache.db"
    query(path, schema)
    content = path.read_bytes()
    with pytest.raises(CorruptStoreError, match="another program") as caught:
        Cachetronaut(path)
    assert str(path) in str(caught.value)
    assert path.read_bytes() == content, "it was changed"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_of_a_later_version(db_path: Path, query: Callable[..., Any]) -> None:
    with Cachetronaut(db_path) as cache:
        cache.set("key", 1)
    query(db_path, "UPDATE cachetronomy_meta SET value = '99' WHERE name = 'schema'")
    content = db_path.read_bytes()
    with pytest.raises(StoreUnavailableError, match=r"layout 99.*upgrade cachetronomy"):
        Cachetronaut(db_path)
    assert db_path.read_bytes() == content


AS_NOBODY = """
import os, sys
from cachetronomy import Cachetronaut, StoreUnavailableError
if os.geteuid() == 0:
    os.setegid(65534)
    os.seteuid(65534)
try:
    cache = Cachetronaut(sys.argv[1])
    print(cache.get("key"))
    cache.set("key", "new")
except StoreUnavailableError as error:
    assert isinstance(error, ConnectionError)
    assert sys.argv[1] in str(error), error
    print("StoreUnavailableError")
"""


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """Make a folder that other users reach: pytest's own are closed to them."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        folder = Path(name) / "folder"
        folder.mkdir()
        yield folder
        folder.chmod(0o755)


needs_permissions = pytest.mark.skipif(os.name != "posix", reason="permission bits")


@needs_permissions
@pytest.mark.parametrize("name", ["cache.db", "sub/folder/cache.db"])
def test_a_read_only_folder(
    open_folder: Path, run_python: Callable[..., CompletedProcess[str]], name: str
) -> None:
    open_folder.chmod(0o555)
    done = run_python(AS_NOBODY, open_folder / name)
    assert done.stdout == "StoreUnavailableError\n"
    assert list(open_folder.iterdir()) == []


@needs_permissions
@pytest.mark.parametrize("folder_mode", [0o555, 0o777], ids=oct)
@pytest.mark.parametrize("file_mode", [0o444, 0o000], ids=oct)
def test_a_file_that_may_not_be_written(
    open_folder: Path,
    run_python: Callable[..., CompletedProcess[str]],
    folder_mode: int,
    file_mode: int,
) -> None:
    path = open_folder / "cache.db"
    with Cachetronaut(path) as cache:
        cache.set("key", "old")
    content = path.read_bytes()
    path.chmod(file_mode)
    open_folder.chmod(folder_mode)
    done = run_python(AS_NOBODY, path)
    assert done.stdout in ("StoreUnavailableError\n", "old\nStoreUnavailableError\n")
    assert path.read_bytes() == content
    path.chmod(0o644)
    open_folder.chmod(0o755)
    with Cachetronaut(path) as cache:
        assert cache.get("key") == "old"


CALLS: dict[str, Any] = {
    **KEY_ACTS,
    "evict_all": lambda cache, _: cache.evict_all(),
    "clear_all": lambda cache, _: cache.clear_all(),
    "clear_expired": lambda cache, _: cache.clear_expired(),
    "clear_by_tags": lambda cache, _: cache.clear_by_tags("t"),
    "store_keys": lambda cache, _: cache.store_keys(),
    "memory_keys": lambda cache, _: cache.memory_keys(),
    "all_keys": lambda cache, _: cache.all_keys(),
    "get_hot_keys": lambda cache, _: cache.get_hot_keys(),
    "memory_stats": lambda cache, _: cache.memory_stats(),
    "store_stats": lambda cache, _: cache.store_stats(),
    "stats": lambda cache, _: cache.stats(),
    "flush": lambda cache, _: cache.flush(),
    "check": lambda cache, _: cache.check(),
    "with": lambda cache, _: cache.__enter__(),
    "decorator": lambda cache, _: cache(len),
    "decorator with options": lambda cache, _: cache(ttl=1),
}


@pytest.mark.parametrize("path", ["file", ":memory:"])
@pytest.mark.parametrize("act", CALLS.values(), ids=CALLS)
def test_use_after_shutdown(db_path: Path, path: str, act: Any) -> None:
    cache = Cachetronaut(db_path if path == "file" else path)
    cache.set("key", "old")
    cache.shutdown()
    content = db_path.read_bytes() if path == "file" else None
    with pytest.raises(CacheClosedError, match="closed") as caught:
        act(cache, "another")
    assert isinstance(caught.value, CachetronomyError)
    assert content is None or db_path.read_bytes() == content
