"""Async clients leave nothing behind: no thread, no open file, no task, no memory.

`make soak` runs it for 1,000 clients.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import conftest
import pytest

CLIENTS = int(os.environ.get("CACHETRONOMY_CLIENTS", "30"))
MOST_GROWTH = 4_096  # KiB

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc"),
]

# Uses clients in one way, before and after looking at what the process has. In a process of its
# own: pytest and its plugins allocate, too.
PROGRAM = """
import asyncio, contextlib, ctypes, gc, json, os, sys, threading, time
from cachetronomy import AsyncCachetronaut

way, clients = sys.argv[1], int(sys.argv[2])
FILES = 10
kept = []
libc = ctypes.CDLL(None)
if hasattr(libc, "mallopt"):
    libc.mallopt(-8, 1)  # One arena: which thread uses which one is chance.

async def use(cache, number):
    calls = []

    @cache(lock="process", key_builder=lambda function, args, kwargs: f"square {args[0]}")
    async def square(number):
        calls.append(number)
        await asyncio.sleep(0)
        return number ** 2

    @cache
    def plain(number):
        return -number

    async def compute():
        await asyncio.sleep(0)
        return number

    async def locked():
        async with cache.lock("lock"):
            await asyncio.sleep(0)

    await cache.set("key", {"number": number}, tags=["tag"])
    await cache.set("large", "x" * 300_000)
    await cache.evict_all()
    assert await cache.get("key") == {"number": number}
    assert len(await cache.get("large")) == 300_000
    assert await asyncio.gather(square(number), square(number)) == [number ** 2] * 2
    assert len(calls) <= 1 and await square(number) == number ** 2 and plain(number) == -number
    both = [cache.get_or_compute(f"computed {number}", compute) for _ in "12"]
    assert await asyncio.gather(*both) == [number] * 2
    await asyncio.gather(locked(), locked(), cache.incr("n"))
    task = asyncio.ensure_future(cache.lock("lock").__aenter__())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])

def make(number):
    return AsyncCachetronaut(f"{number % FILES}.db")

async def close(number):
    async with make(number) as cache:
        await use(cache, number)

async def drop(number):
    await use(make(number), number)

async def abandon(number):
    # Its last reference may be that of the thread that serves it.
    work, cache = ["init_async", "keys", "shutdown"][number % 3], make(number)
    if work != "init_async":
        await use(cache, number)
    task = asyncio.ensure_future(getattr(cache, work)())
    del cache
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])

async def keep(number):
    kept.append(make(number))
    await use(kept[-1], number)

act = {"closed": close, "dropped": drop, "abandoned": abandon, "kept": keep}[way.split(",")[0]]

def threads():
    for thread in os.listdir("/proc/self/task"):
        # OSError: it has just ended.
        with contextlib.suppress(OSError), open(f"/proc/self/task/{thread}/comm") as name:
            yield name.read()

def count():
    for _ in range(1_000):
        gc.collect()
        # One that has ended may still be on its way out.
        if kept or not any("cachetronomy" in name for name in threads()):
            break
        time.sleep(0.005)
    if hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)  # What is free, but kept by the allocator, is no leak.
    with open("/proc/self/statm") as statm, open("/proc/self/maps") as maps:
        pages, mappings = int(statm.read().split()[1]), len(maps.readlines())
    return {
        "threads": len(list(threads())),
        "threads of Python": threading.active_count(),
        "files": len(os.listdir("/proc/self/fd")),
        "mappings": mappings,
        "RSS": pages * os.sysconf("SC_PAGE_SIZE") // 1024,
    }

def tasks():
    return len(asyncio.all_tasks())

async def in_one_loop(numbers):
    before = tasks()
    for number in numbers:
        await act(number)
        if number % 10 == 0:
            gc.collect()
    return tasks() - before

async def several_at_once(numbers):
    before = tasks()
    for number in numbers[::FILES]:
        await asyncio.gather(*(act(one) for one in range(number, number + FILES)))
        gc.collect()
    return tasks() - before

def one_run_each(numbers):
    async def run(number):
        await act(number)
        return tasks() - 1
    left = []
    for number in numbers:
        left.append(asyncio.run(run(number)))
        if number % 10 == 0:
            gc.collect()
    return max(left)

def go(numbers):
    if way.endswith("one run each"):
        return one_run_each(numbers)
    return asyncio.run((several_at_once if way.endswith("at once") else in_one_loop)(numbers))

for _ in range(2):  # What the process has then, it keeps.
    go(range(max(20, clients // 100 * FILES)))
before = count()
left = go(range(1_000, 1_000 + clients))
after = count()
print(json.dumps({"tasks": left} | {name: after[name] - before[name] for name in after}))
"""


@pytest.fixture
def growth(
    run_python: Callable[..., subprocess.CompletedProcess[str]], monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], dict[str, int]]:
    """Tell what a process has more of after so many clients."""
    monkeypatch.setattr(conftest, "PATIENCE", 500)

    def grow(way: str) -> dict[str, int]:
        grown: dict[str, int] = json.loads(run_python(PROGRAM, way, CLIENTS).stdout)
        return grown

    return grow


@pytest.mark.parametrize("how", ["in one loop", "at once", "one run each"])
@pytest.mark.parametrize("end", ["closed", "dropped", "abandoned"])
def test_clients_leave_nothing_behind(
    end: str, how: str, growth: Callable[[str], dict[str, int]]
) -> None:
    grown = growth(f"{end}, {how}")
    memory, mappings = grown.pop("RSS"), grown.pop("mappings")
    assert all(count <= 0 for count in grown.values()), grown
    assert mappings < CLIENTS / 2, "a stack for each, say"
    assert memory <= MOST_GROWTH, "KiB"


def test_clients_that_are_kept_open_are_seen(growth: Callable[[str], dict[str, int]]) -> None:
    grown = growth("kept, in one loop")
    for what in ("threads", "files", "mappings"):
        assert grown[what] >= CLIENTS, what
    assert grown["RSS"] > MOST_GROWTH
