"""Programs that never close their cache end at once, cleanly, with every write in the file."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest
from cachetronomy import Cachetronaut
from conftest import PATIENCE, environment

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from subprocess import CompletedProcess

    from conftest import Child

RUNS = 13  # of each program: 104 exits in all
GENEROUS = 10  # seconds; one is promised, but the machines of a CI are busy

PRELUDE = """
import atexit, gc, os, sys, threading
from cachetronomy import CacheClosedError, Cachetronaut

def say(word):
    os.write(1, (word + "\\n").encode())

def store(cache, name, count=20):
    for number in range(count):
        key = f"{name}-{number}"
        cache.set(key, key)
        assert cache.get(key) == key
        say("stored " + key)
"""

PROGRAMS = {
    "plain": """
cache = Cachetronaut(sys.argv[1])
store(cache, "plain")
say("exit")
""",
    "exception": """
cache = Cachetronaut(sys.argv[1])
store(cache, "exception")
say("exit")
raise SystemError("on purpose")
""",
    "sys.exit": """
def main():
    cache = Cachetronaut(sys.argv[1])
    store(cache, "sys.exit")
    say("exit")
    sys.exit(3)
main()
""",
    "daemon threads": """
cache = Cachetronaut(sys.argv[1])
begun = threading.Barrier(4)
def work(name):
    begun.wait()
    number = 0
    try:
        while True:
            key = f"{name}-{number}"
            cache.set(key, key, tags=["t"])
            say("stored " + key)
            assert cache.get(key) == key
            cache.get(f"{name}-{number // 2}")
            number += 1
    except CacheClosedError:
        pass
for name in "abc":
    threading.Thread(target=work, args=[name], daemon=True).start()
begun.wait()
store(cache, "main")
say("exit")
""",
    "cycle": """
class Owner:
    def __init__(self):
        self.cache = Cachetronaut(sys.argv[1])
        self.itself = self
        self.function = self.cache(lambda: self)
        store(self.cache, "cycle")
gc.disable()
owner = Owner()
del owner
say("exit")
""",
    "several": """
caches = [Cachetronaut(sys.argv[1]) for _ in range(5)]
private = Cachetronaut(":memory:")
for number, cache in enumerate(caches):
    store(cache, f"several{number}", 4)
store(private, "private", 0)
@caches[0]
def function(number):
    return number
assert [function(number) for number in (1, 2, 1)] == [1, 2, 1]
say("exit")
""",
    "os._exit": """
cache = Cachetronaut(sys.argv[1])
store(cache, "os._exit")
say("exit")
os._exit(0)
""",
    "atexit": """
calls = []
def late():
    for number in (1, 1, 2):
        assert function(number) == number
    assert calls == [0, 1, 1, 2], calls
    say("computed")
atexit.register(late)  # Runs last: the cache is closed by then.
cache = Cachetronaut(sys.argv[1])
@cache
def function(number):
    calls.append(number)
    return number
assert function(0) == function(0) == 0
store(cache, "atexit")
def early():
    store(cache, "early")
atexit.register(early)  # Runs first: the cache is still open.
say("exit")
""",
}
CODES = {"exception": 1, "sys.exit": 3}


def run_to_exit(program: str, path: Path) -> tuple[float, list[str], int, str]:
    """Run a program; the seconds from its last word to its end, its words, its code, its errors."""
    with subprocess.Popen(
        [sys.executable, "-c", PRELUDE + program, str(path)],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        words = []
        start = 0.0
        # To the pipe's end: threads may still store and say so after the last word.
        for line in process.stdout:
            words.append(line.rstrip("\n"))
            if words[-1] == "exit":
                start = time.perf_counter()
        process.wait(timeout=PATIENCE)
        took = time.perf_counter() - start
        errors = process.stderr.read()
        return took, words, process.returncode, errors


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_that_never_closes_its_cache_exits_at_once_and_loses_nothing(
    tmp_path: Path, name: str, record_property: Callable[[str, object], None]
) -> None:
    slowest = 0.0
    for run in range(RUNS):
        path = tmp_path / f"{run}.db"
        took, words, code, errors = run_to_exit(PROGRAMS[name], path)
        slowest = max(slowest, took)
        assert code == CODES.get(name, 0), errors
        if name == "exception":
            assert errors.rstrip().endswith("SystemError: on purpose")
            assert errors.count("Traceback") == 1, errors
        else:
            assert errors == ""
        assert "exit" in words
        assert ("computed" in words) is (name == "atexit")
        stored = [word.removeprefix("stored ") for word in words if word.startswith("stored ")]
        assert len(stored) >= 20
        with Cachetronaut(path) as cache:
            assert [key for key in stored if cache.get(key) != key] == []
            assert cache.check() == []
            if name == "atexit":
                assert [key for key in cache.store_keys() if "function(" in key] == [
                    "__main__.function(number=0)"
                ]
    record_property("slowest_exit_seconds", round(slowest, 3))
    print(f"slowest of {RUNS} exits, {name}: {slowest:.3f} s")  # noqa: T201 - for `pytest -rP`
    assert slowest < GENEROUS


def test_a_coroutine_function_in_an_atexit_handler_computes(
    db_path: Path, run_python: Callable[..., CompletedProcess[str]]
) -> None:
    """The loop's threads are gone by then, before the cache is."""
    code = (
        "import asyncio, atexit, sys\n"
        "from cachetronomy import Cachetronaut\n"
        "def handler():\n"
        "    print(asyncio.run(function(2)), asyncio.run(function(1)))\n"
        "if sys.argv[2] == 'before':\n"
        "    atexit.register(handler)\n"
        "cache = Cachetronaut(sys.argv[1])\n"
        "@cache\n"
        "async def function(number):\n"
        "    return number\n"
        "print(asyncio.run(function(1)))\n"
        "if sys.argv[2] == 'after':\n"
        "    atexit.register(handler)\n"
    )
    for order in ("before", "after"):
        done = run_python(code, db_path, order)
        assert (done.stdout, done.stderr) == ("1\n2 1\n", ""), order


def test_a_lock_that_another_process_holds_does_not_hold_up_the_exit(
    db_path: Path, lock_holder: Child
) -> None:
    """What waits to be written then is no more than counts of hits."""
    with Cachetronaut(db_path) as cache:
        cache.set("key", "key")
    lock_holder.ask("BEGIN IMMEDIATE")
    program = (
        "cache = Cachetronaut(sys.argv[1], busy_timeout=20)\n"
        "assert cache.get('key') == 'key'\n"
        "say('exit')\n"
    )
    took, words, code, errors = run_to_exit(program, db_path)
    lock_holder.ask("COMMIT")
    assert (words, code) == (["exit"], 0)
    assert took < GENEROUS, errors
    assert "Traceback" not in errors


def test_hits_are_counted_up_to_the_exit(
    db_path: Path, run_python: Callable[..., CompletedProcess[str]]
) -> None:
    code = (
        "import sys\n"
        "from cachetronomy import Cachetronaut\n"
        "cache = Cachetronaut(sys.argv[1])\n"
        "cache.set('key', 1)\n"
        "for _ in range(7):\n"
        "    cache.get('key')\n"
    )
    for _ in range(3):
        run_python(code, db_path)
    with Cachetronaut(db_path) as cache:
        assert cache.get_hot_keys() == [("key", 21)]


def test_a_client_opened_while_exiting_works(
    db_path: Path, run_python: Callable[..., CompletedProcess[str]]
) -> None:
    code = (
        "import atexit, sys\n"
        "from cachetronomy import Cachetronaut\n"
        "def late():\n"
        "    cache = Cachetronaut(sys.argv[1])\n"
        "    cache.set('late', 1)\n"
        "    print(cache.get('late'))\n"
        "atexit.register(late)\n"
        "Cachetronaut(sys.argv[1]).set('key', 1)\n"
    )
    done = run_python(code, db_path)
    assert (done.stdout, done.stderr) == ("1\n", "")
    with Cachetronaut(db_path) as cache:
        assert sorted(cache.all_keys()) == ["key", "late"]


def test_importing_alone_starts_nothing_and_writes_nothing(
    tmp_path: Path, run_python: Callable[..., CompletedProcess[str]]
) -> None:
    code = (
        "import os, sys, threading\n"
        "os.environ = None\n"  # A read of the environment would fail.
        "import cachetronomy\n"
        "assert threading.active_count() == 1\n"
        "if os.path.isdir('/proc/self/task'):\n"
        "    assert len(os.listdir('/proc/self/task')) == 1\n"
        "print('pydantic' in sys.modules, 'asyncio' in sys.modules)\n"
    )
    assert run_python(code).stdout == "False False\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("call", ["set('last', 1)", "get('last')"])
def test_an_object_finalized_after_the_exit_hook_gets_an_exception_and_no_abort(
    tmp_path: Path, call: str
) -> None:
    program = f"""
class Session:
    def __init__(self, cache):
        self.cache = cache
    def __del__(self):
        try:
            self.cache.{call}
        except Exception as error:
            os.write(1, type(error).__name__.encode())
session = Session(Cachetronaut(sys.argv[1]))
session.itself = session
"""
    done = subprocess.run(
        [sys.executable, "-c", "import os\n" + PRELUDE + program, str(tmp_path / "a.db")],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "CacheClosedError", "")
