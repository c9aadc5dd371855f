"""Every exception of the tree is reachable, and is what its name and its bases promise."""

from __future__ import annotations

import inspect
import os
import pickle
import shutil
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import cachetronomy
import pytest
from cachetronomy import (
    CacheClosedError,
    Cachetronaut,
    CachetronomyError,
    CorruptEntryError,
    CorruptStoreError,
    InvalidKeyError,
    InvalidSettingError,
    SerializationError,
    StoreBusyError,
    StoreFullError,
    StoreUnavailableError,
    _core,
    exceptions,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from subprocess import CompletedProcess

    from conftest import Child

pytestmark = pytest.mark.both_clients


TREE: dict[type[CachetronomyError], tuple[type[Exception], ...]] = {
    CacheClosedError: (),
    CorruptEntryError: (),
    CorruptStoreError: (),
    InvalidKeyError: (TypeError,),
    InvalidSettingError: (ValueError,),
    SerializationError: (ValueError, TypeError),
    StoreBusyError: (TimeoutError,),
    StoreFullError: (OSError,),
    StoreUnavailableError: (ConnectionError,),
}


@pytest.mark.parametrize(("error", "bases"), TREE.items(), ids=str)
def test_an_error_is_in_the_tree_and_of_its_builtin_kinds(
    error: type[CachetronomyError], bases: tuple[type[Exception], ...]
) -> None:
    assert issubclass(error, (CachetronomyError, *bases))
    assert all(issubclass(error, base) for base in bases)
    assert getattr(cachetronomy, error.__name__) is getattr(exceptions, error.__name__) is error
    assert error.__name__ in cachetronomy.__all__
    assert error.__doc__


def test_the_tree_is_whole() -> None:
    defined = {
        value
        for _, value in inspect.getmembers(exceptions, inspect.isclass)
        if issubclass(value, CachetronomyError)
    }
    assert defined == {*TREE, CachetronomyError}


@pytest.mark.parametrize("error", TREE, ids=lambda error: error.__name__)
def test_an_error_survives_pickling(error: type[CachetronomyError]) -> None:
    again = pickle.loads(pickle.dumps(error("the message")))
    assert type(again) is error
    assert str(again) == "the message"


def test_a_closed_cache(db_path: Path) -> None:
    cache = Cachetronaut(db_path)
    cache.close()
    with pytest.raises(CacheClosedError, match="open a new client"):
        cache.get("key")


def test_an_entry_that_cannot_be_decoded() -> None:
    with pytest.raises(CorruptEntryError):
        _core.deserialize(b"\xc1", "msgpack")


def test_a_damaged_file(db_path: Path) -> None:
    with Cachetronaut(db_path) as cache:
        cache.set_many({f"k{n}": "x" * 500 for n in range(500)})
    content = bytearray(db_path.read_bytes())
    content[4_096:] = os.urandom(len(content) - 4_096)
    db_path.write_bytes(content)
    with pytest.raises(CorruptStoreError, match=r"cache\.db"), Cachetronaut(db_path) as cache:
        cache.get_many([f"k{n}" for n in range(500)])
    assert db_path.read_bytes() == content


def test_a_key_that_is_not_text(cache: Cachetronaut) -> None:
    with pytest.raises(InvalidKeyError, match=r"must be a str, not int: 7; use str\(...\)"):
        cache.get(7)  # type: ignore[arg-type]


def test_a_setting_out_of_range(cache: Cachetronaut) -> None:
    with pytest.raises(InvalidSettingError, match="time_to_live: -5 is not a time to live"):
        cache.set("key", 1, ttl=-5)


def test_a_value_that_cannot_be_stored(cache: Cachetronaut) -> None:
    with pytest.raises(SerializationError, match='key "key"'):
        cache.set("key", object())


BUSY: dict[str, Any] = {
    "set": lambda cache: cache.set("key", 1),
    "set_many": lambda cache: cache.set_many({"key": 1}),
    "delete": lambda cache: cache.delete("old"),
    "delete_many": lambda cache: cache.delete_many(["old"]),
    "clear_all": lambda cache: cache.clear_all(),
    "clear_by_tags": lambda cache: cache.clear_by_tags("t"),
}


@pytest.mark.parametrize("act", BUSY.values(), ids=BUSY)
def test_a_lock_that_another_process_holds(
    open_cache: Callable[..., Cachetronaut], lock_holder: Child, db_path: Path, act: Any
) -> None:
    cache = open_cache(busy_timeout=0.05)
    cache.set("old", 1, tags=["t"])
    cache.flush()
    lock_holder.ask("BEGIN IMMEDIATE")
    with pytest.raises(StoreBusyError, match="busy_timeout") as caught:
        act(cache)
    assert str(db_path) in str(caught.value)
    assert cache.get("old") == 1, "a reader waits for nobody"
    cache.evict_all()
    assert cache.get("old") == 1
    assert cache.all_keys() == ["old"]
    lock_holder.ask("COMMIT")
    act(cache)


def test_a_decorated_call_that_finds_the_file_locked_is_an_error(
    open_cache: Callable[..., Cachetronaut], lock_holder: Child
) -> None:
    cache = open_cache(busy_timeout=0.05)
    function = cache(lambda: 1)
    lock_holder.ask("BEGIN IMMEDIATE")
    with pytest.raises(StoreBusyError):
        function()
    lock_holder.ask("COMMIT")
    assert function() == 1


def test_a_lock_that_is_let_go_in_time_is_waited_for(
    open_cache: Callable[..., Cachetronaut], lock_holder: Child
) -> None:
    cache = open_cache(busy_timeout=40)
    for number in range(20):
        lock_holder.ask("BEGIN IMMEDIATE")
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(cache.set, "key", number)
            assert cache.get("key") == (number - 1 if number else None)
            assert not waiting.done()
            lock_holder.ask("COMMIT")
            waiting.result()
        assert cache.get("key") == number


FILL = """
import sys
from cachetronomy import Cachetronaut, StoreFullError, StoreUnavailableError
limit, path = sys.argv[1:]
if limit != "disk":
    import resource
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)))
cache = Cachetronaut(path)
stored = 0
try:
    while stored < 1_000:
        cache.set(f"k{stored}", "x" * 10_000)
        stored += 1
except (StoreFullError, StoreUnavailableError) as error:
    assert isinstance(error, OSError) and path in str(error), error
    assert all(cache.get(f"k{n}") == "x" * 10_000 for n in range(stored))
    assert cache.get(f"k{stored}") is None
    print(type(error).__name__, stored > 0)
"""


@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs a small disk of its own")
def test_a_full_disk(tmp_path: Path, run_python: Callable[..., CompletedProcess[str]]) -> None:
    (tmp_path / "fill.py").write_text(FILL)
    (tmp_path / "disk").mkdir()
    mount = "mount -t tmpfs -o size=1m none disk"
    shell = (
        "import subprocess, sys\n"
        f"shell = '{mount} && exec \"$0\" fill.py disk disk/cache.db'\n"
        "rights = ['unshare', '--mount', '--map-root-user']\n"
        f"if subprocess.run([*rights, 'sh', '-c', '{mount}'], capture_output=True).returncode:\n"
        "    print('cannot mount')\n"
        "else:\n"
        "    sys.exit(subprocess.run([*rights, 'sh', '-c', shell, sys.executable]).returncode)\n"
    )
    done = run_python(shell)
    if done.stdout == "cannot mount\n":
        pytest.skip("this process may not mount a small disk")
    assert done.stdout == "StoreFullError True\n"


@pytest.mark.skipif(os.name != "posix", reason="resource limits")
def test_a_limit_on_the_size_of_files(
    db_path: Path, run_python: Callable[..., CompletedProcess[str]]
) -> None:
    done = run_python(FILL, 600_000, db_path)
    assert done.stdout in ("StoreFullError True\n", "StoreUnavailableError True\n")
    with Cachetronaut(db_path) as cache:
        assert cache.check() == []
        assert cache.get("k0") == "x" * 10_000


def test_a_file_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("text")
    with pytest.raises(StoreUnavailableError, match="cannot create"):
        Cachetronaut(tmp_path / "file" / "folder" / "cache.db")


def test_a_file_whose_folder_went_away(
    db_path: Path, tmp_path: Path, run_python: Callable[..., CompletedProcess[str]]
) -> None:
    """Reading goes on with what is open; whatever fails is an error of the tree."""
    code = (
        "import shutil, sys\n"
        "from cachetronomy import Cachetronaut, CachetronomyError\n"
        "cache = Cachetronaut('folder/cache.db')\n"
        "cache.set('key', 1)\n"
        "shutil.rmtree('folder')\n"
        "for act in (lambda: cache.get('key'), lambda: cache.set('key', 2), cache.all_keys,\n"
        "            cache.stats, cache.flush, cache.check, cache.close):\n"
        "    try:\n"
        "        act()\n"
        "    except CachetronomyError:\n"
        "        pass\n"
    )
    assert run_python(code).stderr == ""
