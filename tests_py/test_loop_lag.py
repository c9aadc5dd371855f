"""The event loop waits neither for the disk nor for a lock: its callbacks come in time meanwhile.

The issue's target is 10 ms, on a machine that does nothing else; a CI's does. So the limit is half
of what a loop would be late that did wait, and time in which the kernel let others have the
processor does not count. `CACHETRONOMY_LAG_MS` sets another limit, `CACHETRONOMY_LAG_SECONDS` how
long the disk is measured for, and `pytest -rP` shows what was found.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from cachetronomy import AsyncCachetronaut, Cachetronaut, StoreBusyError
from cachetronomy.async_lock import AsyncLock
from conftest import PATIENCE, Child, environment
from typing_extensions import Self

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine

LIMIT = float(os.environ.get("CACHETRONOMY_LAG_MS", "250"))
SECONDS = float(os.environ.get("CACHETRONOMY_LAG_SECONDS", "2"))
STALL = 500  # milliseconds that a sync of a file takes on the stalled disk
LATE = 0.8 * STALL  # milliseconds: a callback that is so late waited for the disk
TASKS = 200
PERIOD = 0.001  # seconds between two callbacks that are looked at
NAMES = [f"small {number}" for number in range(2_000)]
LARGE = [f"{number:024}" for number in range(4_000)]  # some 100 KiB

SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static atomic_long stall_ms, on_main, elsewhere;

void stall_for(long ms) { stall_ms = ms; }
long stalls_on_main(void) { return on_main; }
long stalls_elsewhere(void) { return elsewhere; }

static int stalled(const char *name, int fd)
{
    long ms = stall_ms;
    if (ms > 0) {
        struct timespec pause = {ms / 1000, ms % 1000 * 1000000};
        nanosleep(&pause, NULL);
        atomic_fetch_add(syscall(SYS_gettid) == getpid() ? &on_main : &elsewhere, 1);
    }
    return ((int (*)(int))dlsym(RTLD_NEXT, name))(fd);
}

int fsync(int fd) { return stalled("fsync", fd); }
int fdatasync(int fd) { return stalled("fdatasync", fd); }
"""


class Ticker:
    """Looks, as long as it is entered, how late the callbacks of the running loop are."""

    def __init__(self) -> None:
        self.ticks = 0
        self.worst = 0.0  # milliseconds, less those in which others had the processor
        self.worst_by_the_clock = 0.0
        self.schedule: int | None = None
        self.waited = 0
        self.goal = 0
        self.reached = asyncio.Event()
        self.next: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> Self:
        with contextlib.suppress(OSError):  # Not on Linux.
            self.schedule = os.open("/proc/thread-self/schedstat", os.O_RDONLY)
        self.waited = self.wait_for_a_processor()
        self.come_back(asyncio.get_running_loop())
        return self

    async def __aexit__(self, *_exception: object) -> None:
        await self.reach(self.ticks + 1)  # What is late now is looked at, too.
        assert self.next is not None
        self.next.cancel()
        if self.schedule is not None:
            os.close(self.schedule)

    async def reach(self, ticks: int) -> None:
        """Wait for so many ticks."""
        self.goal = ticks
        self.reached.clear()
        await self.reached.wait()

    def come_back(self, loop: asyncio.AbstractEventLoop) -> None:
        at = loop.time() + PERIOD
        self.next = loop.call_at(at, self.tick, loop, at)

    def tick(self, loop: asyncio.AbstractEventLoop, at: float) -> None:
        late = 1_000 * (loop.time() - at)
        waited = self.wait_for_a_processor()
        others, self.waited = (waited - self.waited) / 1e6, waited
        self.worst_by_the_clock = max(self.worst_by_the_clock, late)
        self.worst = max(self.worst, late - others)
        self.ticks += 1
        if self.ticks >= self.goal:
            self.reached.set()
        self.come_back(loop)

    def wait_for_a_processor(self) -> int:
        """Return the nanoseconds that this thread has waited for one so far."""
        return 0 if self.schedule is None else int(os.pread(self.schedule, 100, 0).split()[1])


# What the process with the stalled disk does.


async def double(number: int) -> int:
    """Take a while."""
    await asyncio.sleep(0)
    return 2 * number


async def tail(number: int) -> list[str]:
    """Return some 100 KiB, less what is left out."""
    await asyncio.sleep(0)
    return LARGE[number:]


async def wander(cache: AsyncCachetronaut, function: Any, number: int, end: float) -> int:
    """Do what comes to mind, until the end; how much that was."""
    chance, loop, done = random.Random(number), asyncio.get_running_loop(), 0

    async def read() -> None:
        await cache.get(chance.choice(NAMES))

    async def write() -> None:
        await cache.set(chance.choice(NAMES), {"id": number, "items": [1, 2, 3]})

    async def write_large() -> None:
        await cache.set(f"large {number}", LARGE)

    async def read_large() -> None:
        await cache.get(f"large {chance.randrange(TASKS)}")

    async def read_many() -> None:
        await cache.get_many(chance.sample(NAMES, 10))

    async def call() -> None:
        argument = chance.randrange(2_000)
        assert await function(argument) == 2 * argument

    async def compute() -> None:
        name = f"computed {chance.randrange(500)}"
        assert await cache.get_or_compute(name, lambda: name) == name

    async def count() -> None:
        await cache.incr(f"counter {number % 9}")

    async def delete() -> None:
        await cache.delete(chance.choice(NAMES))

    async def look() -> None:
        await chance.choice([cache.flush, cache.stats, cache.keys, cache.evict_all])()

    ways = [read, write, write_large, read_large, read_many, call, compute, count, delete, look]
    odds = [60, 18, 2, 2, 5, 8, 1, 3, 2, 0.2]
    while loop.time() < end:
        await asyncio.sleep(0.04 * chance.random())
        await chance.choices(ways, odds)[0]()
        done += 1
    return done


async def vacuum(cache: AsyncCachetronaut, end: float) -> int:
    """Have the file written through to the disk again and again."""
    done = 0
    while asyncio.get_running_loop().time() < end:
        await cache.vacuum()
        await asyncio.sleep(0.2)
        done += 1
    return done


async def call_alone(double: Any, tail: Any, number: int, end: float) -> int:
    """Call coroutine functions that the sync client decorates, until the end."""
    chance, loop, done = random.Random(number), asyncio.get_running_loop(), 0
    while loop.time() < end:
        await asyncio.sleep(0.04 * chance.random())
        argument = chance.randrange(2_000)
        assert await double(argument) == 2 * argument
        if chance.random() < 0.02:
            assert len(await tail(number)) == len(LARGE) - number
            await tail.invalidate(number)
        done += 1
    return done


async def let_go(path: str) -> int:
    """Have the last user of an open client forget it."""
    cache = AsyncCachetronaut(path)
    await cache.set("large", LARGE)
    del cache
    await asyncio.sleep(2 * STALL / 1_000)
    return 1


async def on_a_stalled_disk(how: str, path: str) -> dict[str, Any]:
    """Work while every sync of a file takes long; what was seen."""
    shim, ticker, loop = ctypes.CDLL(None), Ticker(), asyncio.get_running_loop()
    work: list[Coroutine[Any, Any, int]]
    async with contextlib.AsyncExitStack() as stack:
        if how == "waits":
            plain = stack.enter_context(Cachetronaut(path))

            async def wait_for_the_disk() -> int:
                plain.set("large", LARGE)
                plain.vacuum()
                return 1

            work = [wait_for_the_disk()]
        elif how == "forgotten":
            work = [let_go(path)]
        elif how == "sync client":
            plain = stack.enter_context(Cachetronaut(path))
            functions = plain(double), plain(tail)
            assert [await function(0) for function in functions] == [0, LARGE]
            end = loop.time() + SECONDS
            work = [call_alone(*functions, number, end) for number in range(TASKS)]
        else:
            cache = AsyncCachetronaut(path, offload_reads=how == "offload_reads")
            await stack.enter_async_context(cache)
            await cache.set_many(dict.fromkeys(NAMES[::2], 1))
            function = cache(double)
            assert await function(0) == 0
            end = loop.time() + SECONDS
            work = [wander(cache, function, number, end) for number in range(TASKS)]
            work.append(vacuum(cache, end))
        shim.stall_for(STALL)
        async with ticker:
            done = await asyncio.gather(*work)
        seen = [shim.stalls_on_main(), shim.stalls_elsewhere()]
        shim.stall_for(0)
    return {
        "milliseconds late": round(ticker.worst, 1),
        "by the clock": round(ticker.worst_by_the_clock, 1),
        "ticks": ticker.ticks,
        "operations": sum(done),
        "stalls on the loop's thread": seen[0],
        "stalls elsewhere": seen[1],
    }


if __name__ == "__main__":
    print(json.dumps(asyncio.run(on_a_stalled_disk(*sys.argv[1:]))))  # noqa: T201 - for the test
    sys.exit()


# The tests.


@pytest.fixture
def stalled_disk(tmp_path: Path, db_path: Path) -> Callable[[str], dict[str, Any]]:
    """Run the program above in a process in which syncs of files take long, when it says so."""
    if not sys.platform.startswith("linux"):
        pytest.skip("needs Linux")
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("needs a C compiler")
    source, shim = tmp_path / "shim.c", tmp_path / "shim.so"
    source.write_text(SHIM)
    subprocess.run([compiler, "-shared", "-fPIC", "-o", shim, source, "-ldl"], check=True)

    def run(how: str) -> dict[str, Any]:
        done = subprocess.run(
            [sys.executable, "-W", "error", __file__, how, str(db_path)],
            env={**environment(), "LD_PRELOAD": str(shim)},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            timeout=PATIENCE + SECONDS,
        )
        seen: dict[str, Any] = json.loads(done.stdout)
        print(f"{how}: {seen}")  # noqa: T201 - for `pytest -rP`
        return seen

    return run


@pytest.mark.timeout(60 + SECONDS)
@pytest.mark.parametrize("how", ["async client", "offload_reads", "sync client"])
def test_the_loop_waits_for_no_disk(
    stalled_disk: Callable[[str], dict[str, Any]],
    how: str,
    record_property: Callable[[str, object], None],
) -> None:
    """With 200 tasks; with the sync client they call decorated coroutine functions."""
    seen = stalled_disk(how)
    record_property("milliseconds_late", seen["milliseconds late"])
    assert seen["stalls elsewhere"] >= 1
    assert seen["stalls on the loop's thread"] == 0
    assert seen["operations"] > TASKS
    assert seen["milliseconds late"] < LIMIT


def test_an_open_client_that_is_forgotten_is_not_closed_by_the_loop(
    stalled_disk: Callable[[str], dict[str, Any]],
) -> None:
    seen = stalled_disk("forgotten")
    assert seen["stalls elsewhere"] >= 1
    assert seen["stalls on the loop's thread"] == 0
    assert seen["milliseconds late"] < LIMIT


def test_a_loop_that_waits_for_the_disk_would_be_noticed(
    stalled_disk: Callable[[str], dict[str, Any]],
) -> None:
    seen = stalled_disk("waits")
    assert seen["stalls on the loop's thread"] >= 1
    assert seen["milliseconds late"] > LATE


@pytest.fixture
def filled(db_path: Path) -> Path:
    """Make a file with some entries, which no client has in memory."""
    with Cachetronaut(db_path) as cache:
        cache.set_many({f"stored {number}": number for number in range(100)})
        cache.set("large", LARGE * 4)
        asyncio.run(cache(double)(1))
    return db_path


@contextlib.asynccontextmanager
async def locked(holder: Child, *exclusively: str) -> AsyncIterator[None]:
    """Have another process hold the lock of the file."""
    for command in (*exclusively, "BEGIN IMMEDIATE"):
        await asyncio.to_thread(holder.ask, command)
    try:
        yield
    finally:
        await asyncio.to_thread(holder.ask, "COMMIT")
        if exclusively:  # It keeps the file to itself as long as it lives.
            await asyncio.to_thread(holder.end)


CLIENTS = ["async client", "offload_reads"]


def opened(kind: str, path: Path, **settings: Any) -> AsyncCachetronaut:
    offload = kind == "offload_reads"
    return AsyncCachetronaut(path, max_items_in_memory=10, offload_reads=offload, **settings)


async def within(lock: AsyncLock) -> str:
    async with lock:
        return "was inside"


def started(*coroutines: Coroutine[Any, Any, Any]) -> list[asyncio.Future[Any]]:
    return [asyncio.ensure_future(one) for one in coroutines]


@pytest.mark.parametrize("kind", CLIENTS)
def test_a_locked_file_holds_up_no_loop_and_what_is_written_waits(
    filled: Path, lock_holder: Child, kind: str
) -> None:
    async def main() -> float:
        async with opened(kind, filled, busy_timeout=PATIENCE) as cache, Ticker() as ticker:
            function = cache(double)
            await cache.set("in memory", "yes")
            async with locked(lock_holder):
                writing = started(
                    *(cache.set(f"set {number}", number) for number in range(50)),
                    cache.set("large set", LARGE),
                    cache.set_many({"many": 1}),
                    cache.incr("counter"),
                    cache.delete("stored 0"),
                    cache.pop("stored 1"),
                    function(2),
                    cache.get_or_compute("computed", lambda: "computed"),
                    cache.clear_by_tags("nothing"),
                    within(cache.lock("lock")),
                    cache.vacuum(),
                )
                # Until the loop has had every chance to be late.
                enough = ticker.ticks + 300
                while ticker.ticks < enough:
                    assert await cache.get("in memory") == "yes"
                    assert await cache.get("missing") is None
                    name = f"stored {ticker.ticks % 90 + 10}"
                    assert await cache.get(name) == int(name.split()[1])
                    assert await cache.get_many([name, "missing"]) == {name: int(name.split()[1])}
                    assert await function(1) == 2
                    assert len(await cache.get("large")) == 4 * len(LARGE)
                    assert await cache.contains("stored 2")
                    await asyncio.sleep(0)
                assert not any(one.done() for one in writing)
            results = await asyncio.gather(*writing)
            assert results[-8:] == [1, True, 1, 4, "computed", [], "was inside", None]
            assert await cache.get_many(["set 49", "many", "stored 1"]) == {"set 49": 49, "many": 1}
        return ticker.worst

    assert asyncio.run(main()) < LIMIT


@pytest.mark.parametrize("kind", CLIENTS)
def test_a_file_that_stays_locked_is_an_error_that_no_loop_waits_for(
    filled: Path, lock_holder: Child, kind: str
) -> None:
    async def main() -> float:
        async with opened(kind, filled, busy_timeout=0.5) as cache, Ticker() as ticker:
            function = cache(double)
            async with locked(lock_holder):
                results: list[Any] = await asyncio.gather(
                    *(cache.set(f"set {number}", number) for number in range(50)),
                    function(2),
                    cache.incr("counter"),
                    cache.clear_by_tags("nothing"),
                    cache.get_or_compute("computed", lambda: "computed"),
                    return_exceptions=True,
                )
                assert {type(result) for result in results} == {StoreBusyError}
                assert (results[50].value, results[-1].value) == (4, "computed")
            assert await cache.get_many(["set 0", "counter", "computed"]) == {}
            assert await function(2) == 4
        return ticker.worst

    assert asyncio.run(main()) < LIMIT


def test_coroutine_functions_of_the_sync_client_hold_up_no_loop(
    filled: Path, lock_holder: Child
) -> None:
    async def main(cache: Cachetronaut) -> float:
        function, leased = cache(double), cache(lock="process")(tail)
        assert await function(3) == 6
        async with Ticker() as ticker:
            async with locked(lock_holder):
                calling = started(
                    *(function(number) for number in range(10, 30)),
                    function.refresh(1),
                    leased(3_998),
                    leased.cache_clear(),
                    function.invalidate(12),
                )
                enough = ticker.ticks + 300
                while ticker.ticks < enough:
                    assert await function(1) == 2
                    assert await function(3) == 6
                    await asyncio.sleep(0)
                assert not any(one.done() for one in calling)
            results = await asyncio.gather(*calling)
            assert results[:22] == [*range(20, 60, 2), 2, LARGE[-2:]]
        return ticker.worst

    with Cachetronaut(filled, busy_timeout=PATIENCE) as cache:
        assert asyncio.run(main(cache)) < LIMIT


def test_coroutine_functions_of_the_sync_client_raise_without_the_loop_waiting(
    filled: Path, lock_holder: Child
) -> None:
    async def main(cache: Cachetronaut) -> float:
        function = cache(double)
        async with Ticker() as ticker, locked(lock_holder):
            calls = (function(number) for number in range(10, 30))
            results: list[Any] = await asyncio.gather(*calls, return_exceptions=True)
            assert {type(result) for result in results} == {StoreBusyError}
            assert [result.value for result in results] == [*range(20, 60, 2)]
        return ticker.worst

    with Cachetronaut(filled, busy_timeout=0.5) as cache:
        assert asyncio.run(main(cache)) < LIMIT


FIRST_CALLS: dict[str, Callable[[AsyncCachetronaut], Coroutine[Any, Any, Any]]] = {
    "init_async": AsyncCachetronaut.init_async,
    "get": lambda cache: cache.get("stored 1"),
    "set": lambda cache: cache.set("stored 1", 1),
    "decorated": lambda cache: cache(double)(1),
}


@pytest.mark.parametrize("first", FIRST_CALLS)
def test_to_open_a_locked_file_holds_up_no_loop(
    filled: Path, lock_holder: Child, first: str
) -> None:
    call = FIRST_CALLS[first]

    async def main() -> float:
        impatient = opened("async client", filled, busy_timeout=0.5)
        patient = opened("async client", filled, busy_timeout=PATIENCE)
        async with Ticker() as ticker:
            async with locked(lock_holder, "PRAGMA locking_mode=EXCLUSIVE"):
                with pytest.raises(StoreBusyError):
                    await call(impatient)
                (opening,) = started(call(patient))
                await ticker.reach(ticker.ticks + 200)
                assert not opening.done()
            await opening
            for cache in (patient, impatient):
                assert await cache.get("stored 1") == 1
                await cache.close()
        return ticker.worst

    assert asyncio.run(main()) < LIMIT


def test_a_loop_that_waits_for_a_lock_would_be_noticed(filled: Path, lock_holder: Child) -> None:
    async def main() -> float:
        with Cachetronaut(filled, busy_timeout=STALL / 1_000) as cache:
            async with Ticker() as ticker, locked(lock_holder):
                with pytest.raises(StoreBusyError):
                    cache.set("key", 1)
        return ticker.worst_by_the_clock

    assert asyncio.run(main()) > LATE
