"""Threads and tasks of several processes on one missing key, round after round.

`make soak` runs it for many rounds.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cachetronomy import Cachetronaut
from conftest import Child

ROUNDS = int(os.environ.get("CACHETRONOMY_PROCESS_ROUNDS", "20"))
PROCESSES = 4
# Of the first process; the others have fewer, so that two cores get through.
THREADS = TASKS = 64
OTHERS_THREADS = OTHERS_TASKS = 8

pytestmark = pytest.mark.timeout(3_600 if ROUNDS > 100 else 120)

# Each round it has all its threads and tasks ask for one key. In every other round whoever computes
# waits until all processes' callers have missed; otherwise they come as they come.
WORKER = """
import asyncio, json, os, sys, threading, time
from cachetronomy import Cachetronaut

path, folder, way, lock, callers = sys.argv[1:]
lock, (threads, tasks) = json.loads(lock), json.loads(callers)
cache = Cachetronaut(path)
book = os.open(os.path.join(folder, "book"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
number = 0
wrong = []

def begin(number):
    os.write(book, f"{number} {os.getpid()}\\n".encode())

def may_end(number):
    return number % 2 == 0 or os.path.exists(os.path.join(folder, f"all missed {number}"))

def key(function, args, kwargs):
    return str(args[0])

@cache(lock=lock, key_builder=key)
def decorated(number):
    begin(number)
    time.sleep(0.002)
    while not may_end(number):
        time.sleep(0.001)
    return [number]

@cache(lock=lock, key_builder=key)
async def in_a_task(number):
    begin(number)
    await asyncio.sleep(0.002)
    while not may_end(number):
        await asyncio.sleep(0.001)
    return [number]

def direct(number):
    return cache.get_or_compute(str(number), lambda: decorated.__wrapped__(number), lock=lock)

ask = decorated if way == "decorated" else direct
start, end = (threading.Barrier(threads + bool(tasks) + 1) for _ in range(2))

def guarded(work):
    while True:
        start.wait()
        try:
            results = work()
            wrong.extend(repr(it) for it in results if it != [number])
        except BaseException as error:
            wrong.append(repr(error))
        end.wait()

async def gather():
    return await asyncio.gather(*(in_a_task(number) for _ in range(tasks)), return_exceptions=True)

for _ in range(threads):
    threading.Thread(target=guarded, args=[lambda: [ask(number)]], daemon=True).start()
if tasks:
    loop = asyncio.new_event_loop()
    run = lambda: loop.run_until_complete(gather())
    threading.Thread(target=guarded, args=[run], daemon=True).start()

for line in sys.stdin:
    number = json.loads(line)[0]
    missed = cache.stats()["misses"] + threads + tasks
    start.wait()
    while not may_end(number) and not wrong and cache.stats()["misses"] < missed:
        time.sleep(0.001)
    print(json.dumps("missed"), flush=True)
    end.wait()
    print(json.dumps(wrong), flush=True)
"""


class Book:
    """What was computed, and by which process."""

    def __init__(self, folder: Path) -> None:
        """Begin with an empty one."""
        self.path = folder / "book"
        self.path.touch()
        self.read = 0

    def news(self) -> list[tuple[int, int]]:
        """Read on: numbers of rounds, and the processes that computed in them."""
        text = self.path.read_text()[self.read :]
        self.read += len(text)
        pairs = (line.split() for line in text.splitlines())
        return [(int(number), int(process)) for number, process in pairs]


def rounds(
    child: Callable[..., Child], folder: Path, way: str, lock: str, count: int
) -> Iterator[tuple[int, list[int]]]:
    """Let all of them ask, again and again: the round, and who computed in it."""
    tasks = way == "decorated"
    callers = [f"[{THREADS}, {TASKS * tasks}]"]
    callers += [f"[{OTHERS_THREADS}, {OTHERS_TASKS * tasks}]"] * (PROCESSES - 1)
    book, path = Book(folder), folder / "cache.db"
    workers = [child(WORKER, path, folder, way, lock, some) for some in callers]
    for number in range(count):
        for worker in workers:
            worker.tell(number)
        for worker in workers:
            assert worker.hear() == "missed"
        (folder / f"all missed {number}").touch()
        for worker in workers:
            assert worker.hear() == []
        news = book.news()
        assert {about for about, _ in news} == {number}
        yield number, [process for _, process in news]
    for worker in workers:
        assert worker.end() == 0
    with Cachetronaut(path) as cache:
        assert [cache.get(str(number)) for number in range(count)] == [[n] for n in range(count)]
        assert cache.check() == []


WAYS = pytest.mark.parametrize("way", ["decorated", "get_or_compute"])


@WAYS
def test_of_all_processes_one_computes(
    child: Callable[..., Child], tmp_path: Path, way: str
) -> None:
    for number, processes in rounds(child, tmp_path, way, '"process"', ROUNDS):
        assert len(processes) == 1, number


@WAYS
def test_by_default_one_of_each_process_computes(
    child: Callable[..., Child], tmp_path: Path, way: str
) -> None:
    for number, processes in rounds(child, tmp_path, way, '"thread"', ROUNDS):
        # Without a wait for all, the quick ones may compute for the slow ones.
        least = PROCESSES if number % 2 else 1
        assert least <= len(set(processes)) == len(processes), number


@WAYS
def test_without_compute_once_many_of_each_process_compute(
    child: Callable[..., Child], tmp_path: Path, way: str
) -> None:
    for number, processes in rounds(child, tmp_path, way, "null", 2):
        assert number % 2 == 0 or min(Counter(processes).values()) == OTHERS_THREADS * (
            2 if way == "decorated" else 1
        )
