"""Results that are computed anew in the background: nobody waits, one at a time, no harm done."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
from cachetronomy import Cachetronaut
from cachetronomy._core import ManualClock

LOCKS = pytest.mark.parametrize("lock", ["thread", "process", None])


def until(condition: Callable[[], object]) -> None:
    """Wait; the suite's limit of time for a test ends it."""
    while not condition():
        time.sleep(0.001)


class Source:
    """A plain function and a coroutine function whose computations wait until they may end."""

    def __init__(self) -> None:
        """Begin with no call."""
        self.calls: list[int] = []
        self.ended = 0
        self.go = threading.Event()
        self.go.set()
        self.fails = False

    def __cache_key__(self) -> str:
        """Be the same to every call."""
        return "source"

    def end(self) -> int:
        """Return a number that no earlier call had, or fail."""
        self.ended += 1
        if self.fails:
            raise ValueError(self.ended)
        return self.ended

    def plain(self) -> int:
        """Compute."""
        self.calls.append(threading.get_ident())
        self.go.wait()
        return self.end()

    async def coroutine(self) -> int:
        """Compute."""
        self.calls.append(threading.get_ident())
        while not self.go.is_set():  # noqa: ASYNC110 - threads set it
            await asyncio.sleep(0.001)
        return self.end()


@LOCKS
def test_callers_of_a_plain_function_get_the_old_result_while_one_thread_computes(
    anywhere: Cachetronaut, clock: ManualClock, lock: Any
) -> None:
    source = Source()
    cached = anywhere(ttl=10, stale_while_revalidate=60, lock=lock)(source.plain)
    assert cached() == 1
    clock.advance(11)
    source.go.clear()
    assert [cached() for _ in range(20)] == [1] * 20
    until(lambda: len(source.calls) == 2)
    assert [cached() for _ in range(20)] == [1] * 20
    source.go.set()
    until(lambda: cached() == 2)
    assert len(source.calls) == 2
    assert threading.get_ident() == source.calls[0] != source.calls[1]
    clock.advance(71)
    assert cached() == 3, "too old to be served"


@LOCKS
def test_callers_of_a_coroutine_function_get_the_old_result_while_one_task_computes(
    anywhere: Cachetronaut, clock: ManualClock, lock: Any
) -> None:
    source = Source()
    cached = anywhere(ttl=10, stale_while_revalidate=60, lock=lock)(source.coroutine)

    async def main() -> None:
        assert await cached() == 1
        clock.advance(11)
        source.go.clear()
        assert [await cached() for _ in range(20)] == [1] * 20
        while len(source.calls) < 2:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.001)
        assert await asyncio.gather(*(cached() for _ in range(20))) == [1] * 20
        source.go.set()
        while await cached() != 2:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.001)

    asyncio.run(main())
    assert len(source.calls) == 2


@pytest.mark.parametrize("color", ["plain", "coroutine"])
def test_one_that_fails_is_logged_and_counted_and_tried_again_after_a_second(
    anywhere: Cachetronaut, clock: ManualClock, caplog: pytest.LogCaptureFixture, color: str
) -> None:
    source = Source()
    cached = anywhere(ttl=10, stale_while_revalidate=60)(getattr(source, color))

    async def ask() -> int:
        result = cached()
        return result if color == "plain" else await result

    async def ended(count: int) -> None:
        while anywhere.stats()["errors"] < count:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.001)

    async def main() -> None:
        assert await ask() == 1
        clock.advance(11)
        source.fails = True
        for tries in (1, 2):
            assert await ask() == 1
            await ended(tries)
            clock.advance(0.9)
            assert [await ask() for _ in range(10)] == [1] * 10
            await asyncio.sleep(0.02)
            assert len(source.calls) == 1 + tries
            clock.advance(0.2)
        source.fails = False
        assert await ask() == 1
        while await ask() == 1:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.001)

    with caplog.at_level(logging.WARNING, "cachetronomy"):
        asyncio.run(main())
    assert anywhere.stats()["errors"] == 2
    assert [record.exc_info is not None for record in caplog.records] == [True, True]
    assert len(source.calls) == 4


def test_early_computes_before_the_end_and_the_caller_does_not_wait(
    anywhere: Cachetronaut, clock: ManualClock
) -> None:
    source = Source()
    cached = anywhere(ttl=10, early=True)(source.plain)
    threading.Timer(0.05, source.go.set).start()
    source.go.clear()
    assert cached() == 1
    assert [cached() for _ in range(200)] == [1] * 200
    assert len(source.calls) == 1, "far from the end"
    # 50 ms took it; 1 ms before the end nearly every call is due.
    clock.advance(9.999)
    source.go.clear()
    for _ in range(200):
        assert cached() == 1
    until(lambda: len(source.calls) == 2)
    source.go.set()
    until(lambda: cached() == 2)
    assert len(source.calls) == 2


PRELUDE = """
import asyncio, faulthandler, json, os, sys, threading, time, warnings
faulthandler.dump_traceback_later(20, exit=True)
warnings.simplefilter("error")
from cachetronomy import Cachetronaut
lock = json.loads(sys.argv[2])
cache = Cachetronaut(sys.argv[1])
calls = []
go = threading.Event()

def until(condition):
    while not condition():
        time.sleep(0.001)

@cache(ttl=0.001, stale_while_revalidate=60, lock=lock)
def plain():
    calls.append(1)
    if len(calls) > 1:
        while not go.is_set():
            time.sleep(0.001)
    return len(calls)

@cache(ttl=0.001, stale_while_revalidate=60, lock=lock)
async def coroutine():
    calls.append(1)
    if len(calls) > 1:
        while not go.is_set():
            await asyncio.sleep(0.001)
    return len(calls)

def begin():
    assert plain() == 1
    time.sleep(0.01)
    assert plain() == 1
    until(lambda: len(calls) == 2)

async def begin_in_a_loop():
    assert await coroutine() == 1
    await asyncio.sleep(0.01)
    assert await coroutine() == 1
    while len(calls) < 2:
        await asyncio.sleep(0.001)
"""

PROGRAMS = {
    "the program ends": """
begin()
class Late:
    def __del__(self):
        time.sleep(0.1)  # The interpreter is on its way out; the thread finds that it is.
late = Late()
late.itself = late
""",
    "the program ends, which has a loop": """
asyncio.run(begin_in_a_loop())
""",
    "the loop ends": """
for _ in range(3):
    asyncio.run(begin_in_a_loop())
    calls.clear()
    cache.clear_all()
go.set()
asyncio.run(begin_in_a_loop())
""",
    "the cache is closed": """
begin()
threads = [one for one in threading.enumerate() if one is not threading.current_thread()]
cache.close()
go.set()
for one in threads:
    one.join(10)
    assert not one.is_alive()
""",
    "the program forks": """
warnings.simplefilter("ignore", DeprecationWarning)  # Of forks beside threads.
begin()
child = os.fork()
if child == 0:
    code = 1
    try:
        go.set()
        # Nobody refreshes here: the child begins one of its own, if the lease is not its parent's.
        assert plain() == 1
        if lock != "process":
            until(lambda: plain() > 1)
        code = 0
    finally:
        os._exit(code)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
go.set()
until(lambda: plain() > 1)
""",
}


@LOCKS
@pytest.mark.parametrize("program", PROGRAMS)
def test_while_a_refresh_runs(
    db_path: Path, run_python: Callable[..., CompletedProcess[str]], program: str, lock: Any
) -> None:
    if "forks" in program and not hasattr(os, "fork"):
        pytest.skip("no fork on this system")
    done = run_python(PRELUDE + PROGRAMS[program], db_path, json.dumps(lock))
    assert (done.stdout, done.stderr) == ("", "")
