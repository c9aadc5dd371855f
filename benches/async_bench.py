"""Compares the async client with its peers and with the sync client, side by side in one run.

As in bench.py every figure is a ratio of two measurements taken one after the other, many times;
printed are the medians. The original package has our import name, so it is measured in a process
of its own, which answers with one round whenever it is asked for one. Peers that are not installed
are left out.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import importlib
import itertools
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from bench import ROUNDS, VALUE, nanoseconds, peer
from cachetronomy import AsyncCachetronaut, Cachetronaut, __version__

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    # One round: nanoseconds per operation.
    Round: TypeAlias = Callable[[], Awaitable[float]]

PEERS = {  # Modules, and the packages that have them.
    "aiocache": "aiocache",
    "async_lru": "async-lru",
    "cachebox": "cachebox",
    "cashews": "cashews",
    "diskcache": "diskcache",
    "uvloop": "uvloop",
}
MAIN_PEERS = ("async_lru", "cachebox", "diskcache")  # For the second event loop.
WRITE_ROUNDS = 11  # They wait for the disk.
ORIGINALS = ("0.1.5", "0.4.1")  # The last with a class for asyncio, and the last.
TESTS = Path(__file__).resolve().parents[1] / "tests_py"

ROUND = """
async def measure(number):
    start = perf_counter_ns()
    for _ in repeat(None, number):
        {}
    return (perf_counter_ns() - start) / number
"""

# Asked for (what, argument, how many), it answers with the nanoseconds of one. Tasks that its calls
# leave behind are done between the rounds: they are not counted.
ORIGINAL = """
import gc, itertools, json, sys, time

VALUE = json.loads(sys.argv[1])
numbers = itertools.count()

def next_key():
    return str(next(numbers))

async def identity(x):
    return x

async def measure(cache, decorated, what, argument, number):
    start = time.perf_counter_ns()
    if what == "decorated":
        for _ in range(number):
            await decorated(argument)
    elif what == "get":
        for _ in range(number):
            await cache.get(argument)
    elif what == "set":
        for _ in range(number):
            await cache.set(next_key(), VALUE)
    else:
        await asyncio.gather(*[cache.set(next_key(), VALUE) for _ in range(number)])
    return (time.perf_counter_ns() - start) / number

async def main():
    is_split = hasattr(cachetronomy, "AsyncCachetronaut")
    kind = cachetronomy.AsyncCachetronaut if is_split else cachetronomy.Cachetronaut
    cache = kind(db_path="original.db")
    if is_split:
        await cache.init_async()
    decorated = cache(time_to_live=3_600, prefer="json")(identity)
    await cache.set("key", VALUE)
    for line in sys.stdin:
        gc.disable()
        spent = await measure(cache, decorated, *json.loads(line))
        gc.enable()
        while getattr(cache, "_bg_tasks", None):
            await asyncio.sleep(0.001)
        print(json.dumps(spent), flush=True)
    await cache.shutdown()

asyncio.run(main())
"""


def awaited(statement: str, names: dict[str, Any], number: int) -> Round:
    """Time a statement of a coroutine."""
    scope = {**names, "perf_counter_ns": time.perf_counter_ns, "repeat": itertools.repeat}
    exec(ROUND.format(statement), scope)  # noqa: S102 - as `timeit` does, of our own text
    measure: Callable[[int], Awaitable[float]] = scope["measure"]
    return functools.partial(measure, number)


def called(statement: str, names: dict[str, Any], number: int) -> Round:
    """Time a statement of a plain function."""

    async def measure() -> float:
        return nanoseconds(statement, names, number)

    return measure


def shared(statement: str, names: dict[str, Any], many: int) -> Round:
    """Time a statement that does so `many` operations."""
    whole = awaited(statement, {**names, "many": many}, 1)

    async def measure() -> float:
        return await whole() / many

    return measure


class Original:
    """A version of the original package, in a process of its own."""

    def __init__(self, version: str, child: Any) -> None:  # noqa: ANN401 - of the tests
        """Take over the process."""
        self.label = f"original {version}"
        self._child = child

    def round(self, what: str, argument: object, number: int) -> Round:
        """Time its client. Nothing of ours runs meanwhile: this process waits for the answer."""

        async def measure() -> float:
            return float(self._child.ask(what, argument, number))

        return measure


@contextlib.contextmanager
def originals(folder: Path) -> Iterator[list[Original]]:
    """Start the original package's versions; the tests know how to make them."""
    sys.path.append(str(TESTS))
    with contextlib.ExitStack() as stack:
        started = []
        try:
            tests = importlib.import_module("originals")
            skipped: type[BaseException] = importlib.import_module("pytest").skip.Exception
        except ImportError as error:
            print(f"skipped: needs {error.name}, for the original package")
            yield []
            return
        for version in ORIGINALS:
            home = folder / version
            home.mkdir()
            try:
                child = tests.original(version).child(home, ORIGINAL, json.dumps(VALUE))
            except skipped as reason:
                print(reason)
                continue
            stack.callback(child.end)
            started.append(Original(version, child))
        yield started


async def compare(
    title: str, ours: Round, theirs: dict[str, Round], *, writes: bool = False
) -> None:
    """Print our time, each peer's time, and the median of the ratios."""
    run = functools.partial(measured, writes=writes)
    rounds = WRITE_ROUNDS if writes else ROUNDS
    mine: list[float] = []
    pairs: dict[str, list[tuple[float, float]]] = {label: [] for label in theirs}
    for _ in range(rounds):
        for label, one in theirs.items():
            pair = await run(ours), await run(one)
            mine.append(pair[0])
            pairs[label].append(pair)
    if not theirs:
        mine = [await run(ours) for _ in range(rounds)]
    print(f"{title:28} {'cachetronomy':24} {statistics.median(mine):12,.0f} ns")
    for label, both in pairs.items():
        ratio = statistics.median(a / b for a, b in both)
        theirs_ns = statistics.median(b for _, b in both)
        print(f"{'':28} {label:24} {theirs_ns:12,.0f} ns   ours / theirs {ratio:6.3f}")


async def measured(one: Round, *, writes: bool) -> float:
    """Run one round, without the garbage collector as `timeit` does."""
    if writes and hasattr(os, "sync"):
        os.sync()  # What one left to be written would be paid for by the next that has to wait.
    gc.disable()
    try:
        return await one()
    finally:
        gc.enable()


async def identity(x: object) -> object:
    """Return the argument: the cheapest coroutine function there is."""
    return x


async def hits(cache: AsyncCachetronaut, peers: dict[str, Any], children: list[Original]) -> None:
    """Compare hits in memory."""
    names: dict[str, Any] = {"ours": cache(identity), "get": cache.get}
    await cache.set("key", VALUE)
    decorated: dict[str, tuple[str, int]] = {}
    gets: dict[str, Round] = {}
    async with contextlib.AsyncExitStack() as stack:
        if "async_lru" in peers:
            alru_cache = peers["async_lru"].alru_cache
            names["lru"] = alru_cache(maxsize=128)(identity)
            names["lru_ttl"] = alru_cache(maxsize=128, ttl=3_600)(identity)
            decorated["async_lru.alru_cache"] = "lru", 3_000
            decorated["the same with ttl"] = "lru_ttl", 3_000
        if "cachebox" in peers:
            cachebox = peers["cachebox"]
            names["box"] = cachebox.cached(cachebox.TTLCache(1_000, 3_600))(identity)
            decorated["cachebox.cached"] = "box", 3_000
            await names["box"](42)
            gets["cachebox.cached, int"] = awaited("await box(42)", names, 3_000)
        if "aiocache" in peers:
            names["aio"] = peers["aiocache"].cached(ttl=3_600)(identity)
            simple = peers["aiocache"].SimpleMemoryCache()
            await simple.set("key", VALUE)
            decorated["aiocache.cached"] = "aio", 200
            gets["aiocache.SimpleMemoryCache"] = awaited(
                "await aio_get('key')", {"aio_get": simple.get}, 200
            )
        if "cashews" in peers:
            cashews = peers["cashews"].Cache()
            cashews.setup("mem://")
            stack.push_async_callback(cashews.close)
            await cashews.set("key", VALUE)
            names["cashews"] = cashews(ttl="1h")(identity)
            decorated["cashews"] = "cashews", 100
            gets["cashews.Cache.get"] = awaited(
                "await cashews_get('key')", {"cashews_get": cashews.get}, 200
            )
        for argument in (42, "an argument"):
            for name in ("ours", *(name for name, _ in decorated.values())):
                await names[name](argument)  # The first call computes.
            rounds = {
                label: awaited(f"await {name}({argument!r})", names, number)
                for label, (name, number) in decorated.items()
            }
            for child in children:
                rounds[child.label] = child.round("decorated", argument, 100)
            ours = awaited(f"await ours({argument!r})", names, 3_000)
            await compare(f"decorated, {type(argument).__name__}", ours, rounds)
    for child in children:
        gets[child.label] = child.round("get", "key", 200)
    await compare("get, in memory", awaited("await get('key')", names, 3_000), gets)


async def writes(
    cache: AsyncCachetronaut,
    sync: Cachetronaut,
    folder: Path,
    peers: dict[str, Any],
    children: list[Original],
) -> None:
    """Compare acknowledged writes: many at once, and one after the other."""
    names: dict[str, Any] = {
        "set": cache.set,
        "set_many": cache.set_many,
        "gather": asyncio.gather,
        "sync_set": sync.set,
        "value": VALUE,
        "next_key": functools.partial(next, map(str, itertools.count())),
    }
    alone = {"Cachetronaut.set": called("sync_set(next_key(), value)", names, 100)}
    theirs: dict[str, Round] = {}
    with contextlib.ExitStack() as stack:
        if "diskcache" in peers:
            disk = stack.enter_context(peers["diskcache"].Cache(str(folder / "diskcache")))
            names["disk_set"] = disk.set
            # So many that each round has its share of the checkpoints.
            theirs["diskcache.Cache.set"] = called(
                "disk_set(next_key(), value, expire=3600)", names, 300
            )
        many = shared("await set_many({next_key(): value for _ in range(many)})", names, 1_000)
        for child in children:
            alone[f"{child.label}, set"] = child.round("set", None, 20)
        together = {
            **theirs,
            **{f"{child.label}, 100 sets": child.round("gather", None, 100) for child in children},
        }
        gathered = shared(
            "await gather(*[set(next_key(), value) for _ in range(many)])", names, 1_000
        )
        lonely = awaited("await set(next_key(), value)", names, 100)
        await compare("1,000 concurrent sets, each", gathered, together, writes=True)
        await compare("set_many of 1,000, each", many, theirs, writes=True)
        await compare("set, alone", lonely, alone, writes=True)


async def reads(folder: Path) -> None:
    """Compare hits in the file with the sync client's."""
    path = folder / "reads.db"
    with Cachetronaut(path, max_items_in_memory=0) as sync:
        sync.set_many({str(key): VALUE for key in range(2_000)})
        for title, offload in (("get, from the file", False), ("the same, offload_reads", True)):
            async with AsyncCachetronaut(
                path, max_items_in_memory=0, offload_reads=offload
            ) as cache:
                names: dict[str, Any] = {
                    "get": cache.get,
                    "sync_get": sync.get,
                    "stored": functools.partial(next, itertools.cycle(map(str, range(2_000)))),
                }
                number = 200 if offload else 500
                ours = awaited("await get(stored())", names, number)
                theirs = {"Cachetronaut.get": called("sync_get(stored())", names, number)}
                await compare(title, ours, theirs)


async def everything(folder: Path, peers: dict[str, Any], children: list[Original]) -> None:
    """Run everything on the event loop that is running."""
    async with AsyncCachetronaut(folder / "hits.db", max_items_in_memory=1_000) as cache:
        await hits(cache, peers, children)
    with Cachetronaut(folder / "sync.db", max_items_in_memory=1_000) as sync:
        async with AsyncCachetronaut(folder / "async.db", max_items_in_memory=1_000) as cache:
            await writes(cache, sync, folder, peers, children)
    await reads(folder)


def main() -> None:
    """Run everything under asyncio, and the main lines under uvloop."""
    print(f"cachetronomy {__version__}; medians of {ROUNDS} rounds, {WRITE_ROUNDS} of writes")
    peers = {name: module for name in PEERS if (module := peer(name)) is not None}
    for name, package in PEERS.items():
        if name not in peers:
            print(f"skipped: needs {package}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for event_loop in ("asyncio", "uvloop"):
            (folder / event_loop).mkdir()
        with originals(folder) as children:
            print("asyncio")
            asyncio.run(everything(folder / "asyncio", peers, children))
        if "uvloop" in peers:
            print("uvloop")
            some = {name: peers[name] for name in MAIN_PEERS if name in peers}
            peers["uvloop"].run(everything(folder / "uvloop", some, []))


if __name__ == "__main__":
    main()
