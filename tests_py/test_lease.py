"""The lease of a computation: a holder that lives keeps it, one that went is replaced in time.

`make soak` kills more holders and has one compute for longer.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cachetronomy import Cachetronaut
from conftest import Child

KILLS = int(os.environ.get("CACHETRONOMY_LEASE_KILLS", "10"))
# More than a lease lasts that nobody renews.
LONG = float(os.environ.get("CACHETRONOMY_LEASE_SECONDS", "7"))
LEASE = 5.0  # seconds; `LEASE_LIFE` in src/cache/lease.rs
SLACK = 2.0  # seconds more, for a busy machine
TOGETHER = 10  # holders that are killed at once

pytestmark = [
    pytest.mark.timeout(600 if KILLS > TOGETHER else 60),
    pytest.mark.skipif(os.name != "posix", reason="SIGKILL, SIGSTOP, fork"),
]

# `ask` has a thread or a task call the function, and answers when that has ended: the key, the
# value or what was raised, and when. Everything else answers at once.
PEER = """
import asyncio, json, os, sys, threading, time, warnings
from cachetronomy import Cachetronaut
warnings.simplefilter("ignore", DeprecationWarning)  # Of forks beside threads, from 3.12 on.

path, folder = sys.argv[1:]
cache = Cachetronaut(path)
book = os.open(os.path.join(folder, "book"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
saying = threading.Lock()

def say(*words):
    with saying:
        os.write(1, (json.dumps(words) + "\\n").encode())

def may_end(key, how):
    return how == "quick" or os.path.exists(os.path.join(folder, f"end {key}"))

def begin(key):
    os.write(book, f"{key} {os.getpid()}\\n".encode())

def end(key, how):
    if how == "raise":
        raise ValueError("on purpose")
    return [key, os.getpid()]

def build_key(function, args, kwargs):
    return args[0]

@cache(lock="process", key_builder=build_key)
def plain(key, how):
    begin(key)
    while not may_end(key, how):
        time.sleep(0.005)
    return end(key, how)

@cache(lock="process", key_builder=build_key)
async def coroutine(key, how):
    begin(key)
    while not may_end(key, how):
        await asyncio.sleep(0.005)
    return end(key, how)

def direct(key, how):
    return cache.get_or_compute(key, lambda: plain.__wrapped__(key, how), lock="process")

WAYS = {"plain": plain, "coroutine": lambda *a: asyncio.run(coroutine(*a)), "direct": direct}

def ask(key, how, way):
    def work():
        try:
            result = WAYS[way](key, how)
        except BaseException as error:
            result = type(error).__name__
        say(key, result, time.monotonic())
    threading.Thread(target=work, daemon=True).start()

def fork(leaves):
    child = os.fork()
    if child == 0:
        if leaves == "at once":
            os._exit(0)
        cache.set(leaves, leaves)
        time.sleep(1.5)  # A pass of its background thread.
        sys.exit()
    say(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))

acts = {"ask": ask, "fork": fork, "close": cache.close, "sys.exit": sys.exit, "os._exit": os._exit}
for line in sys.stdin:
    name, *args = json.loads(line)
    acts[name](*args)
"""


class Peers:
    """Processes on one file, and the book of what they compute."""

    def __init__(self, child: Callable[..., Child], folder: Path) -> None:
        """Begin with none."""
        self.folder = folder
        self.path = folder / "cache.db"
        self.child = child

    def __call__(self) -> Child:
        """Start one."""
        return self.child(PEER, self.path, self.folder)

    def computing(self, key: str) -> list[int]:
        """Name the processes that have begun to compute the value of a key."""
        book = self.folder / "book"
        lines = book.read_text().splitlines() if book.exists() else []
        pairs = (line.rsplit(" ", 1) for line in lines)
        return [int(process) for about, process in pairs if about == key]

    def hold(self, key: str, how: str = "long", way: str = "plain") -> Child:
        """Start one that computes until it may end."""
        holder = self()
        self.ask(holder, key, how, way)
        return holder

    def ask(self, one: Child, key: str, how: str, way: str = "plain") -> None:
        """Have it compute, and see that it has begun."""
        one.tell("ask", key, how, way)
        while one.process.pid not in self.computing(key):
            assert one.process.poll() is None
            time.sleep(0.005)

    def let_end(self, key: str) -> None:
        """Let whoever computes it return."""
        (self.folder / f"end {key}").touch()

    def check(self) -> None:
        """Find the file sound, and nobody's lease in it."""
        with Cachetronaut(self.path) as cache:
            assert cache.check() == []


@pytest.fixture
def peers(child: Callable[..., Child], tmp_path: Path) -> Peers:
    """Gather processes on one file."""
    return Peers(child, tmp_path)


WAYS = pytest.mark.parametrize("way", ["plain", "coroutine", "direct"])


def hear_all(waiters: list[Child], count: int) -> list[tuple[str, Any, float]]:
    """Hear that many answers of each."""
    return [tuple(waiter.hear()) for waiter in waiters for _ in range(count)]


@pytest.mark.parametrize("batch", range(-(-KILLS // TOGETHER)))
def test_a_killed_holder_is_replaced_within_its_lease(peers: Peers, batch: int) -> None:
    keys = [f"k{batch}-{number}" for number in range(TOGETHER)]
    holders = [peers() for _ in keys]
    for holder, key in zip(holders, keys, strict=True):
        peers.ask(holder, key, "long")
    waiters = [peers() for _ in range(3)]
    for waiter, way in zip(waiters, ["plain", "coroutine", "direct"], strict=True):
        for key in keys:
            waiter.tell("ask", key, "quick", way)
            waiter.tell("ask", key, "quick", way)
    # They wait for as long as the holders live, and the killed ones had begun to renew.
    time.sleep(1 + batch % 3)
    assert [len(peers.computing(key)) for key in keys] == [1] * TOGETHER
    killed = time.monotonic()
    for holder in holders:
        holder.process.kill()
    answers = hear_all(waiters, 2 * TOGETHER)
    slowest = max(when for _, _, when in answers) - killed
    assert Counter(key for key, _, _ in answers) == dict.fromkeys(keys, 6)
    for key, result, when in answers:
        first, second = peers.computing(key)
        assert result == [key, second]
        assert first != second
        assert killed < when
    assert slowest <= LEASE + SLACK
    print(f"slowest of {TOGETHER} kills: {slowest:.2f} s")  # noqa: T201 - for `pytest -rP`
    peers.check()


@WAYS
def test_a_holder_that_computes_for_longer_than_the_lease_keeps_it(peers: Peers, way: str) -> None:
    holder, waiter = peers.hold("k", way=way), peers()
    waiter.tell("ask", "k", "quick", way)
    time.sleep(LONG)
    assert peers.computing("k") == [holder.process.pid]
    peers.let_end("k")
    assert holder.hear()[1] == waiter.hear()[1] == ["k", holder.process.pid]
    assert peers.computing("k") == [holder.process.pid]
    peers.check()


def test_a_holder_that_stands_still_for_less_than_the_lease_keeps_it(peers: Peers) -> None:
    holder, waiter = peers.hold("k"), peers()
    waiter.tell("ask", "k", "quick", "plain")
    for _ in range(2):
        holder.process.send_signal(signal.SIGSTOP)
        time.sleep(1.5)
        holder.process.send_signal(signal.SIGCONT)
        time.sleep(1.5)
    peers.let_end("k")
    assert holder.hear()[1] == waiter.hear()[1] == ["k", holder.process.pid]
    assert peers.computing("k") == [holder.process.pid]


def test_a_holder_that_stood_still_for_longer_takes_nothing_back(peers: Peers) -> None:
    holder, second, third = peers.hold("k"), peers(), peers()
    stopped = time.monotonic()
    holder.process.send_signal(signal.SIGSTOP)
    peers.ask(second, "k", "long")
    assert time.monotonic() - stopped <= LEASE + SLACK
    holder.process.send_signal(signal.SIGCONT)
    third.tell("ask", "k", "quick", "plain")
    time.sleep(2.5)  # The first one's background thread has passed, and renewed nothing.
    assert peers.computing("k") == [holder.process.pid, second.process.pid]
    peers.let_end("k")
    assert holder.hear()[1] == ["k", holder.process.pid]
    assert second.hear()[1] == ["k", second.process.pid]
    assert third.hear()[1] in (["k", holder.process.pid], ["k", second.process.pid])
    assert peers.computing("k") == [holder.process.pid, second.process.pid]


@WAYS
def test_when_a_holder_raises_the_next_one_computes_at_once(peers: Peers, way: str) -> None:
    holder, waiter = peers.hold("k", "raise", way), peers()
    waiter.tell("ask", "k", "quick", way)
    time.sleep(0.5)
    assert peers.computing("k") == [holder.process.pid]
    peers.let_end("k")
    _, raised, ended = holder.hear()
    _, value, when = waiter.hear()
    assert (raised, value) == ("ValueError", ["k", waiter.process.pid])
    assert when - ended < SLACK
    assert peers.computing("k") == [holder.process.pid, waiter.process.pid]


@WAYS
@pytest.mark.parametrize("end", ["close", "sys.exit", "os._exit"])
def test_a_holder_that_leaves_is_replaced(peers: Peers, end: str, way: str) -> None:
    holder, waiter = peers.hold("k", way=way), peers()
    waiter.tell("ask", "k", "quick", way)
    time.sleep(0.5)
    assert peers.computing("k") == [holder.process.pid]
    left = time.monotonic()
    holder.tell(end, *([0] if end == "os._exit" else []))
    _, value, when = waiter.hear()
    assert value == ["k", waiter.process.pid]
    # One that leaves in order gives the lease back.
    assert when - left <= SLACK + (LEASE if end == "os._exit" else 0)
    if end == "close":
        peers.let_end("k")
        assert holder.hear()[1] == "CacheClosedError"
    else:
        assert holder.process.wait(10) == 0
    assert peers.computing("k") == [holder.process.pid, waiter.process.pid]
    peers.check()


@pytest.mark.parametrize("leaves", ["at once", "in order"])
def test_a_forked_child_leaves_its_parents_lease_alone(peers: Peers, leaves: str) -> None:
    holder, waiter = peers.hold("k"), peers()
    waiter.tell("ask", "k", "quick", "plain")
    holder.tell("fork", leaves)
    assert holder.hear() == [0]
    time.sleep(0.5)
    assert peers.computing("k") == [holder.process.pid]
    peers.let_end("k")
    assert holder.hear()[1] == waiter.hear()[1] == ["k", holder.process.pid]
    peers.check()


def test_a_forked_child_does_not_keep_the_lease_of_a_killed_parent(peers: Peers) -> None:
    holder, waiter = peers.hold("k"), peers()
    waiter.tell("ask", "k", "quick", "plain")
    holder.tell("fork", "in order")
    with Cachetronaut(peers.path) as cache:
        while cache.get("in order") is None:  # The child runs, and its background thread too.
            time.sleep(0.01)
    killed = time.monotonic()
    holder.process.kill()
    _, value, when = waiter.hear()
    assert value == ["k", waiter.process.pid]
    assert when - killed <= LEASE + SLACK


def test_those_who_wait_look_a_few_times_a_second(cache: Cachetronaut, peers: Peers) -> None:
    holder = peers.hold("k")
    used = time.process_time()
    waiting = [
        threading.Thread(target=cache.get_or_compute, args=["k", list], kwargs={"lock": "process"})
        for _ in range(16)
    ]
    for one in waiting:
        one.start()
    time.sleep(2)
    used = time.process_time() - used
    assert cache.stats()["misses"] < 100
    peers.let_end("k")
    for one in waiting:
        one.join()
    assert cache.get("k") == holder.hear()[1]
    assert used < 0.5


# Each computes its own key, and for that asks for the other's when both compute.
CIRCLE = """
import asyncio, sys
from cachetronomy import Cachetronaut

path, way, mine, other = sys.argv[1:]
cache = Cachetronaut(path)

def build_key(function, args, kwargs):
    return args[0]

def meet(key):
    if key == other:
        return False
    print("computing", flush=True)
    sys.stdin.readline()
    return True

@cache(lock="process", key_builder=build_key)
def plain(key):
    return [key, plain(other)] if meet(key) else [key]

@cache(lock="process", key_builder=build_key)
async def coroutine(key):
    return [key, await coroutine(other)] if meet(key) else [key]

def direct(key):
    compute = lambda: [key, direct(other)] if meet(key) else [key]
    return cache.get_or_compute(key, compute, lock="process")

run = (lambda key: asyncio.run(coroutine(key))) if way == "coroutine" else globals()[way]
print(run(mine), flush=True)
"""


@pytest.mark.parametrize("way", ["plain", "coroutine", "direct"])
def test_two_processes_that_wait_for_each_others_leases_go_on(
    db_path: Path, child: Callable[..., Child], way: str
) -> None:
    peers = [child(CIRCLE, db_path, way, *keys).process for keys in ("ab", "ba")]
    start = time.monotonic()
    for peer in peers:
        assert peer.stdout is not None
        assert peer.stdout.readline() == "computing\n"
    for peer in peers:
        assert peer.stdin is not None
        peer.stdin.write("\n")
        peer.stdin.flush()
    results = [peer.stdout.readline() for peer in peers if peer.stdout is not None]
    assert time.monotonic() - start < LEASE + SLACK
    # The first to be tired of waiting computes the other's key itself.
    assert results[0].startswith("['a', ['b'")
    assert results[1].startswith("['b', ['a'")
