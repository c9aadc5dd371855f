"""Tasks are cancelled at random: that ends their own waiting, and nothing else.

`make soak` runs it for 10,000 cancellations.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import importlib.util
import itertools
import logging
import math
import os
import queue
import random
import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from cachetronomy import (
    AsyncCachetronaut,
    CacheClosedError,
    Cachetronaut,
    CorruptStoreError,
    StoreBusyError,
    async_lock,
)
from cachetronomy._core import ManualClock
from conftest import Child

CANCELLATIONS = int(os.environ.get("CACHETRONOMY_CANCELLATIONS", "500"))
CASES = 4  # that share them
PER_CLIENT = 40  # cancellations that one client lives through
PATIENCE = 20  # seconds until who waits is taken for lost
A_LONG_TIME = 3_600
LARGE = 300_000  # bytes; a row of more than 256 KiB is not read on the event loop

LOOPS = [
    "asyncio",
    pytest.param(
        "uvloop",
        marks=pytest.mark.skipif(importlib.util.find_spec("uvloop") is None, reason="needs uvloop"),
    ),
]


def run(kind: str, main: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine on an event loop of this kind, as `asyncio.run` does."""
    if kind == "uvloop":
        import uvloop  # noqa: PLC0415 - it may be missing

        loop = uvloop.new_event_loop()
    else:
        loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(main)
    finally:
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        if left:
            loop.run_until_complete(asyncio.wait(left))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


async def steps(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def open_futures() -> list[asyncio.Future[Any]]:
    """List what is not done on the running loop, but for the running task."""
    gc.collect()
    loop, me = asyncio.get_running_loop(), asyncio.current_task()
    futures = [one for one in gc.get_objects() if isinstance(one, asyncio.Future)]
    return [one for one in futures if one is not me and not one.done() and one.get_loop() is loop]


class Observer(logging.Handler):
    """Collects what must not happen."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.findings: list[str] = []
        self.cancellations = 0

    def report(self, finding: str) -> None:
        self.findings.append(finding)

    def emit(self, record: logging.LogRecord) -> None:
        self.report(f"logged: {record.getMessage()}")

    def hear(self, _loop: object, context: dict[str, Any]) -> None:
        self.report(f"told to the event loop: {context}")


@pytest.fixture
def observer() -> Iterator[Observer]:
    """Listen to the log."""
    observer = Observer()
    logging.getLogger("cachetronomy").addHandler(observer)
    yield observer
    logging.getLogger("cachetronomy").removeHandler(observer)


@pytest.fixture(params=["file", ":memory:"])
def anywhere_async(
    request: pytest.FixtureRequest, db_path: Path, clock: ManualClock
) -> Callable[..., AsyncCachetronaut]:
    """Make async clients on a file, and on a private store: the test runs with either."""
    path = db_path if request.param == "file" else ":memory:"
    return functools.partial(AsyncCachetronaut, path, _clock=clock)


@pytest.fixture
def other_thread() -> Iterator[Callable[[Callable[[], object]], None]]:
    """Call things on another thread."""
    calls: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()

    def work() -> None:
        while (call := calls.get()) is not None:
            call()

    thread = threading.Thread(target=work)
    thread.start()
    yield calls.put
    calls.put(None)
    thread.join(PATIENCE)


class RefusedError(Exception):
    """What a function raises, and the cache keeps."""


class Part:
    """A task of a round."""

    def __init__(self, name: str, task: asyncio.Future[Any], *, may_time_out: bool = False) -> None:
        self.name = name
        self.task = task
        self.may_time_out = may_time_out
        self.was_told = False

    def cancel(self) -> None:
        if self.task.cancel():
            self.was_told = True


class Session:
    """One client, and tasks that use it while others are cancelled."""

    def __init__(
        self,
        cache: AsyncCachetronaut,
        clock: ManualClock,
        chance: random.Random,
        observer: Observer,
        other_thread: Callable[[Callable[[], object]], None],
        patience: float = PATIENCE,
    ) -> None:
        self.cache = cache
        self.clock = clock
        self.chance = chance
        self.observer = observer
        self.other_thread = other_thread
        self.patience = patience
        self.number = 0  # of the round
        self.numbers = itertools.count(1)
        # What was begun, and of that what is known to have been done.
        self.written: defaultdict[str, set[int]] = defaultdict(set)
        self.counted: Counter[str] = Counter()
        self.counts: defaultdict[str, list[int]] = defaultdict(list)
        self.added: list[str] = []
        self.popped: list[str] = []
        self.computed: Counter[str] = Counter()
        self.inside = 0
        self.clients: list[AsyncCachetronaut] = []
        self.parts: list[Part] = []
        # Programs keep tasks and exceptions, whose frames hold what they had in hand.
        self.kept: deque[object] = deque(maxlen=400)
        self.is_lost = False
        self.decorate()

    def decorate(self) -> None:
        async def make(name: str, key: str) -> dict[str, Any]:
            self.computed[key] += 1
            await steps(self.chance.randrange(4))
            return self.new(name)

        def key(function: Any, args: tuple[Any, ...], _: object) -> str:
            return f"{function.__name__} {args[0]}"

        @self.cache(key_builder=key)
        async def once(number: int) -> dict[str, Any]:
            return await make(f"once {number}", f"once {number}")

        @self.cache(key_builder=key, lock="process")
        async def leased(number: int) -> dict[str, Any]:
            return await make(f"leased {number}", f"leased {number}")

        @self.cache(key_builder=key, cache_exceptions=RefusedError, lock="process")
        async def refused(number: int) -> None:
            await steps(self.chance.randrange(4))
            raise RefusedError(number)

        @self.cache(key_builder=key, ttl=10, stale_while_revalidate=math.inf)
        async def stale(number: int) -> dict[str, Any]:
            return await make(f"stale {number}", f"stale {number}")

        @self.cache(key_builder=key, ttl=10, stale_while_revalidate=math.inf, lock="process")
        async def stale_leased(number: int) -> dict[str, Any]:
            return await make(f"stale_leased {number}", f"stale_leased {number}")

        self.once, self.leased, self.refused = once, leased, refused
        self.stale, self.stale_leased = stale, stale_leased

    # What is written and read.

    def new(self, key: str) -> dict[str, Any]:
        number = next(self.numbers)
        self.written[key].add(number)
        return {"key": key, "number": number, "pad": "x" * LARGE if "large" in key else ""}

    def look(self, key: str, value: Any) -> None:
        if value is None:
            return
        if value["key"] != key or value["number"] not in self.written[key]:
            self.observer.report(f"{key}: nobody wrote {str(value)[:80]}")

    def key(self) -> str:
        return self.chance.choice(["a", "b", "c", "large a", "large b"])

    # What the tasks do.

    async def get(self) -> None:
        key = self.key()
        if self.chance.random() < 0.5:
            await self.cache.evict(key)
        self.look(key, await self.cache.get(key))

    async def put(self) -> None:
        key = self.key()
        await self.cache.set(key, self.new(key))

    async def put_own(self) -> None:
        key = f"own {next(self.numbers)}"
        value = self.new(key)
        await self.cache.set(key, value)
        if self.chance.random() < 0.5:
            await self.cache.evict(key)
        if await self.cache.get(key) != value:
            self.observer.report(f"{key}: what was acknowledged is not there")
        await self.cache.delete(key)
        if await self.cache.get(key) is not None:
            self.observer.report(f"{key}: what was deleted is there")

    async def put_many(self) -> None:
        keys = {self.key() for _ in "123"}
        await self.cache.set_many({key: self.new(key) for key in keys})

    async def get_many(self) -> None:
        for key, value in (await self.cache.get_many(["a", "b", "c", "large a"])).items():
            self.look(key, value)

    async def delete(self) -> None:
        await self.cache.delete(self.key())

    async def incr(self) -> None:
        key = self.chance.choice(["n", "m"])
        self.counted[key] += 1
        self.counts[key].append(await self.cache.incr(key, ttl=math.inf))

    async def add(self) -> None:
        key = f"added {self.number}"
        if await self.cache.add(key, self.new(key)):
            self.added.append(key)

    async def pop(self) -> None:
        key = f"popped {self.number}"
        value = await self.cache.pop(key)
        self.look(key, value)
        if value is not None:
            self.popped.append(key)

    async def get_or_compute(self, lock: Any = "thread") -> None:
        key = f"computed {lock} {self.number}"

        async def compute() -> dict[str, Any]:
            await steps(self.chance.randrange(4))
            return self.new(key)

        value = await self.cache.get_or_compute(key, compute, lock=lock)
        self.must_look(key, value)

    async def get_or_compute_leased(self) -> None:
        await self.get_or_compute("process")

    def must_look(self, key: str, value: Any) -> None:
        if value is None:
            self.observer.report(f"{key}: no value")
        self.look(key, value)

    async def call(self) -> None:
        self.must_look(f"once {self.number}", await self.once(self.number))

    async def call_leased(self) -> None:
        self.must_look(f"leased {self.number}", await self.leased(self.number))

    async def call_refused(self) -> None:
        with suppress(RefusedError):
            await self.refused(self.number)
            self.observer.report("refused: no exception")

    async def call_stale(self) -> None:
        name = self.chance.choice(["stale", "stale_leased"])
        self.must_look(f"{name} 0", await getattr(self, name)(0))

    async def refresh(self) -> None:
        name = self.chance.choice(["leased", "stale_leased"])
        self.must_look(f"{name} 0", await getattr(self, name).refresh(0))

    async def invalidate(self) -> None:
        await self.chance.choice([self.leased, self.stale]).invalidate(0)

    async def locked(self) -> None:
        async with self.cache.lock("lock"):
            self.inside += 1
            if self.inside != 1:
                self.observer.report(f"{self.inside} inside of one lock")
            try:
                await steps(self.chance.randrange(4))
            finally:
                self.inside -= 1

    async def init(self) -> None:
        client = AsyncCachetronaut(self.cache.db_path, _clock=self.clock)
        self.clients.append(client)
        await client.init_async()
        self.look("a", await client.get("a"))

    async def block(self) -> None:
        client = AsyncCachetronaut(self.cache.db_path, _clock=self.clock)
        self.clients.append(client)
        async with client:
            await client.set("a", self.new("a"))

    operations = (
        *(get, get, get, put, put, put_own, put_many, get_many, delete, incr, incr, add, pop),
        *(get_or_compute, get_or_compute_leased, call, call_leased, call_refused, call_stale),
        *(refresh, invalidate, locked, locked, locked, init, block),
    )

    # What was left half done would be in the way of these.
    for_the_next = (
        *(locked, put_own, incr, get_or_compute, get_or_compute_leased),
        *(call, call_leased, call_refused, call_stale),
    )

    # How they are cancelled.

    def at_once(self, part: Part) -> None:
        part.cancel()

    def after_some_steps(self, part: Part) -> None:
        async def wait() -> None:
            await steps(self.chance.randrange(12))
            part.cancel()

        self.kept.append(asyncio.ensure_future(wait()))

    def from_a_callback(self, part: Part) -> None:
        loop, count = asyncio.get_running_loop(), self.chance.randrange(30)

        def tick() -> None:
            nonlocal count
            count -= 1
            if count > 0:
                loop.call_soon(tick)
            else:
                part.cancel()

        loop.call_soon(tick)

    def when_another_ends(self, part: Part) -> None:
        self.parts[0].task.add_done_callback(lambda _: part.cancel())

    def at_a_time(self, part: Part) -> None:
        asyncio.get_running_loop().call_later(self.chance.random() * 0.004, part.cancel)

    def from_another_thread(self, part: Part) -> None:
        loop = asyncio.get_running_loop()
        self.other_thread(lambda: loop.call_soon_threadsafe(part.cancel))

    ways = (
        *(at_once, after_some_steps, after_some_steps, from_a_callback, from_a_callback),
        *(when_another_ends, at_a_time, at_a_time, from_another_thread),
    )

    async def within(self, operation: Any, seconds: float) -> None:
        if hasattr(asyncio, "timeout") and self.chance.random() < 0.5:
            async with asyncio.timeout(seconds):
                await operation(self)
        else:
            await asyncio.wait_for(operation(self), seconds)

    # A round.

    def start(self, operation: Any, kind: str) -> None:
        name = f"{operation.__name__} ({kind})"
        if kind == "timed":
            work = self.within(operation, self.chance.random() * 0.003)
            self.parts.append(Part(name, asyncio.ensure_future(work), may_time_out=True))
            return
        part = Part(name, asyncio.ensure_future(operation(self)))
        self.parts.append(part)
        if kind == "cancelled":
            way = self.chance.choice(self.ways)
            part.name = f"{operation.__name__} ({way.__name__})"
            way(self, part)

    def start_gather(self) -> None:
        inner = [
            Part("gathered", asyncio.ensure_future(self.chance.choice(self.operations)(self)))
            for _ in "123"
        ]
        self.parts.extend(inner)
        outer = Part("gather", asyncio.gather(*(part.task for part in inner)))
        self.kept.append(outer.task)
        loop, count = asyncio.get_running_loop(), self.chance.randrange(20)

        def cancel() -> None:
            nonlocal count
            count -= 1
            if count > 0:
                loop.call_soon(cancel)
                return
            for part in inner:
                part.was_told = not part.task.done()
            outer.cancel()

        loop.call_soon(cancel)
        # So that the loop hears of no exception that nobody takes.
        outer.task.add_done_callback(lambda task: task.cancelled() or task.exception())

    async def settle(
        self, parts: list[Part], allowed: tuple[type[BaseException], ...] = ()
    ) -> None:
        """Wait for all tasks, and look at what became of them."""
        if parts:
            await asyncio.wait([part.task for part in parts], timeout=self.patience)
        for part in parts:
            self.kept.append(part.task)
            if not part.task.done():
                self.observer.report(f"{part.name} still waits")
                self.is_lost = True
            elif part.task.cancelled():
                self.observer.cancellations += 1
                if not part.was_told:
                    self.observer.report(f"{part.name} was cancelled by nobody")
            elif (error := part.task.exception()) is not None:
                if part.may_time_out and type(error) is asyncio.TimeoutError:
                    self.observer.cancellations += 1
                elif not isinstance(error, allowed):
                    self.observer.report(f"{part.name} raised {error!r}")
            elif part.was_told:
                self.observer.report(f"{part.name} went on though it was cancelled")

    async def play(self) -> None:
        """Start some tasks, cancel some of them, and let somebody else try the same."""
        self.number += 1
        before = self.observer.cancellations
        await self.cache.set(f"popped {self.number}", self.new(f"popped {self.number}"))
        if self.chance.random() < 0.5:
            self.clock.advance(20)  # What is stale is refreshed in the background.
        # Some do the same at the same time.
        favourite = self.chance.choice(self.operations)
        for _ in range(self.chance.randrange(4, 14)):
            kind = self.chance.choice(
                ["left alone", "cancelled", "left alone", "cancelled", "timed"]
            )
            is_favourite = self.chance.random() < 0.4
            self.start(favourite if is_favourite else self.chance.choice(self.operations), kind)
        if self.chance.random() < 0.2:
            self.start_gather()
        parts, self.parts = self.parts, []
        await self.settle(parts)
        await self.end_background_tasks()
        if self.is_lost:
            return
        for operation in self.for_the_next:
            self.start(operation, "the next")
        parts, self.parts = self.parts, []
        await self.settle(parts)
        clients, self.clients = self.clients, []
        closing = [asyncio.ensure_future(client.shutdown()) for client in clients]
        await self.settle([Part("shutdown", task) for task in closing])
        if max(Counter(self.added + self.popped).values(), default=0) > 1:
            self.observer.report("two had what only one can have")
        cancelled = self.observer.cancellations - before
        if not 1 <= self.computed[f"once {self.number}"] <= 1 + cancelled:
            self.observer.report(f"computed {self.computed[f'once {self.number}']} times")

    async def end_background_tasks(self, *, cancel: bool = True) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            if cancel and self.chance.random() < 0.5:
                task.cancel()
        self.kept.extend(others)
        if others and (await asyncio.wait(others, timeout=self.patience))[1]:
            self.observer.report("a task that was left never ends")
            self.is_lost = True

    # The end.

    async def audit(self) -> None:
        """Look at what is there when nobody does anything any more."""
        # Writes that were cancelled may still be under way; what is written later comes after them.
        await self.cache.delete("nobody's")
        keys = [*(key for key in self.written if not key.startswith("own")), *self.counted]
        found = await self.cache.get_many(keys)
        await self.cache.evict_all()
        if found != await self.cache.get_many(keys):
            self.observer.report("memory had something else than the store")
        for key, value in found.items():
            if key not in self.counted:
                self.look(key, value)
        for key, attempts in self.counted.items():
            known = self.counts[key]
            if len(set(known)) != len(known):
                self.observer.report(f"{key}: two got one count")
            if not max(known, default=0) <= found.get(key, 0) <= attempts:
                self.observer.report(f"{key}: {found.get(key, 0)} of {attempts}, told {max(known)}")
            if found.get(key, 0) < len(known):
                self.observer.report(f"{key}: {found.get(key, 0)}, but {len(known)} were told")
        for findings in await self.cache.check():
            self.observer.report(f"check: {findings}")
        # Those that were cancelled do not keep others from being refreshed.
        await self.stale(0)
        self.clock.advance(20)
        before = self.computed["stale 0"]
        await self.stale(0)
        await self.end_background_tasks(cancel=False)
        if self.computed["stale 0"] != before + 1:
            self.observer.report("a stale result was not refreshed")

    async def close(self) -> None:
        """Close the client while it is used, and look at what is left."""
        # Who waits for a lock looks for itself whether the cache was closed.
        is_heard = async_lock._LONGEST_PAUSE != A_LONG_TIME
        operations = [one for one in self.operations if is_heard or one is not Session.locked]
        for _ in range(self.chance.randrange(10)):
            kind = self.chance.choice(["left alone", "cancelled", "timed"])
            self.start(self.chance.choice(operations), kind)
        parts, self.parts = self.parts, []
        await steps(self.chance.randrange(5))
        closing = [asyncio.ensure_future(self.cache.shutdown()) for _ in "12"]
        closing[0].cancel() if self.chance.random() < 0.5 else None
        await asyncio.wait(closing)
        await self.settle(parts, (CacheClosedError,))
        for client in self.clients:
            await client.shutdown()
        await self.end_background_tasks()
        me = asyncio.current_task()
        if left := asyncio.all_tasks() - {me}:
            self.observer.report(f"tasks are left: {left}")
        self.kept.clear()
        deadline = time.monotonic() + self.patience
        # What nobody waits for any more may still be under way.
        while (left := open_futures()) and time.monotonic() < deadline:  # noqa: ASYNC110 - anything
            await asyncio.sleep(0.001)
        if left:
            self.observer.report(f"futures are left: {left}")


async def live(session: Session, cancellations: int) -> None:
    """Play until so many were cancelled."""
    asyncio.get_running_loop().set_exception_handler(session.observer.hear)
    enough = session.observer.cancellations + cancellations
    while session.observer.cancellations < enough and not session.observer.findings:
        await session.play()
    if not session.is_lost:
        await session.audit()
    await session.close()


def lock_pauses(monkeypatch: pytest.MonkeyPatch, *seconds: float) -> None:
    """Let those who wait for a lock look at it so seldom by themselves."""
    monkeypatch.setattr(async_lock, "_SHORTEST_PAUSE", seconds[0])
    monkeypatch.setattr(async_lock, "_LONGEST_PAUSE", seconds[-1])


@pytest.mark.timeout(600)
@pytest.mark.parametrize("where", ["file", ":memory:"])
@pytest.mark.parametrize("kind", LOOPS)
def test_who_is_cancelled_takes_nothing_from_others(
    kind: str,
    where: str,
    tmp_path: Path,
    observer: Observer,
    other_thread: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    share = -(-CANCELLATIONS // CASES)
    for number in itertools.count():
        # With every other client a lock is heard of by word alone.
        lock_pauses(monkeypatch, *([A_LONG_TIME] if number % 2 else [0.001, 0.05]))
        clock = ManualClock()
        path = where if where == ":memory:" else tmp_path / f"{number}.db"
        cache = AsyncCachetronaut(path, offload_reads=number % 4 > 1, _clock=clock)
        session = Session(cache, clock, random.Random(number), observer, other_thread)
        run(kind, live(session, min(share - observer.cancellations, PER_CLIENT)))
        assert not observer.findings, "\n".join([f"client {number}", *observer.findings])
        if observer.cancellations >= share:
            return


# Clients that do one thing wrong, each of which has to be found out.


class RaisesAnother(AsyncCachetronaut):
    async def get(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return await super().get(*args, **kwargs)
        except asyncio.CancelledError:
            raise RuntimeError("another") from None


class GoesOn(AsyncCachetronaut):
    async def get_many(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return await super().get_many(*args, **kwargs)
        except asyncio.CancelledError:
            return {}


class Invents(AsyncCachetronaut):
    async def get_many(self, *args: Any, **kwargs: Any) -> Any:
        found = await super().get_many(*args, **kwargs)
        return {
            key: {**value, "number": -1} if isinstance(value, dict) else value
            for key, value in found.items()
        }


class CountsInTwoSteps(AsyncCachetronaut):
    async def incr(self, key: str, *args: Any, **kwargs: Any) -> int:
        value = await self.get(key, default=0)
        await asyncio.sleep(0)
        await self.set(key, value + 1, *args, **kwargs)
        return value + 1


class LeavesAFuture(AsyncCachetronaut):
    left: Any

    async def set(self, *args: Any, **kwargs: Any) -> None:
        self.left = asyncio.get_running_loop().create_future()
        await super().set(*args, **kwargs)


class LeavesATask(AsyncCachetronaut):
    left: Any

    async def set(self, *args: Any, **kwargs: Any) -> None:
        self.left = asyncio.ensure_future(asyncio.shield(asyncio.Event().wait()))
        await super().set(*args, **kwargs)


class TellsTheLoop(AsyncCachetronaut):
    async def delete(self, *args: Any, **kwargs: Any) -> bool:
        asyncio.get_running_loop().call_soon(lambda: 1 / 0)
        return await super().delete(*args, **kwargs)


class Holding:
    """A lock that is taken for good if it is cancelled at the wrong moment."""

    def __init__(self, lock: Any) -> None:
        self.lock = lock

    async def __aenter__(self) -> None:
        await self.lock.__aenter__()
        await asyncio.sleep(0)

    async def __aexit__(self, *exception: object) -> None:
        await self.lock.__aexit__(*exception)


class KeepsTheLock(AsyncCachetronaut):
    def lock(self, *args: Any, **kwargs: Any) -> Any:
        return Holding(super().lock(*args, **kwargs))


class Deaf:
    """A lock that may wake somebody who is gone, and then nobody else."""

    def __init__(self) -> None:
        self.is_taken = False
        self.waiting: deque[asyncio.Future[None]] = deque()

    async def __aenter__(self) -> None:
        while self.is_taken:
            self.waiting.append(asyncio.get_running_loop().create_future())
            await self.waiting[-1]
        self.is_taken = True

    async def __aexit__(self, *exception: object) -> None:
        self.is_taken = False
        if self.waiting:
            first = self.waiting.popleft()
            first.done() or first.set_result(None)


class LosesAWakeup(AsyncCachetronaut):
    def lock(self, *_: Any, **__: Any) -> Any:
        self.one = getattr(self, "one", None) or Deaf()
        return self.one


@pytest.mark.parametrize(
    ("broken", "finding", "patience"),
    [
        (RaisesAnother, "raised RuntimeError('another')", PATIENCE),
        (GoesOn, "went on though it was cancelled", PATIENCE),
        (Invents, "nobody wrote", PATIENCE),
        (CountsInTwoSteps, "two got one count", PATIENCE),
        (TellsTheLoop, "told to the event loop", PATIENCE),
        (LeavesAFuture, "futures are left", 0.5),
        (LeavesATask, "a task that was left never ends", 0.5),
        (KeepsTheLock, "still waits", 0.5),
        (LosesAWakeup, "still waits", 0.5),
    ],
)
def test_what_a_client_does_wrong_is_found_out(
    broken: type[AsyncCachetronaut],
    finding: str,
    patience: float,
    db_path: Path,
    clock: ManualClock,
    observer: Observer,
    other_thread: Any,
) -> None:
    for number in range(50):
        path = db_path.with_name(f"{number}.db")
        cache = broken(path, offload_reads=True, _clock=clock)
        session = Session(cache, clock, random.Random(number), observer, other_thread, patience)
        run("asyncio", live(session, PER_CLIENT))
        if any(finding in one for one in observer.findings):
            break
    assert any(finding in one for one in observer.findings), observer.findings


# What a program keeps of a task - itself, its exception - keeps nothing from others.


@pytest.mark.parametrize("lock", ["thread", "process"])
@pytest.mark.parametrize("kind", LOOPS)
def test_a_cancelled_computation_that_is_kept_leaves_the_lead_to_the_next(
    kind: str, lock: Any, anywhere_async: Callable[..., AsyncCachetronaut]
) -> None:
    async def main() -> None:
        started = asyncio.Event()

        async def never() -> None:
            started.set()
            await asyncio.Event().wait()

        async with anywhere_async() as cache:
            kept = asyncio.ensure_future(cache.get_or_compute("key", never, lock=lock))
            await started.wait()
            kept.cancel()
            await asyncio.wait([kept])
            assert kept.cancelled()
            again = asyncio.ensure_future(cache.get_or_compute("key", lambda: 42, lock=lock))
            await asyncio.wait([again], timeout=PATIENCE)
            assert again.done(), "it waits for somebody who is gone"
            assert again.result() == 42

    run(kind, main())


@pytest.mark.parametrize("how", ["cancelled", "too late"])
def test_who_gave_up_a_lock_and_is_kept_is_not_woken_in_the_place_of_others(
    how: str, anywhere_async: Callable[..., AsyncCachetronaut], monkeypatch: pytest.MonkeyPatch
) -> None:
    lock_pauses(monkeypatch, A_LONG_TIME)

    async def main() -> None:
        async with anywhere_async() as cache:

            async def wait(timeout: float | None) -> None:
                async with cache.lock("lock", timeout=timeout):
                    pass

            async with cache.lock("lock"):
                first = asyncio.ensure_future(wait(0.01 if how == "too late" else None))
                await has_waited(cache)
                if how == "cancelled":
                    first.cancel()
                await asyncio.wait([first], timeout=PATIENCE)
                assert first.done()
                second = asyncio.ensure_future(wait(None))
                await has_waited(cache)
            await asyncio.wait([second], timeout=PATIENCE)
            assert second.done(), "nobody woke it"
            second.result()
            assert first.cancelled() or isinstance(first.exception(), StoreBusyError)

    run("asyncio", main())


async def has_waited(cache: AsyncCachetronaut) -> None:
    """Let who has begun to wait for a lock look at it, twice, and be told."""
    for _ in range(10):
        await cache.flush()  # It is done after what was asked for before.


@pytest.mark.parametrize("needs", ["thread", "process"])
def test_a_refresh_that_is_cancelled_before_it_begins_is_begun_by_the_next_call(
    needs: Any, anywhere_async: Callable[..., AsyncCachetronaut], clock: ManualClock
) -> None:
    calls: list[int] = []

    async def main() -> None:
        async with anywhere_async() as cache:

            @cache(ttl=10, stale_while_revalidate="1d", lock=needs, key_builder=lambda *_: "key")
            async def count() -> int:
                calls.append(1)
                return len(calls)

            assert await count() == 1
            clock.advance(20)
            others = asyncio.all_tasks()
            assert await count() == 1
            (kept,) = asyncio.all_tasks() - others
            kept.cancel()
            await asyncio.wait([kept])
            assert calls == [1]
            assert await count() == 1
            (refresh,) = asyncio.all_tasks() - others
            await refresh
            assert await count() == 2

    run("asyncio", main())


# What is cancelled at one moment, or fails while nobody waits for it any more.


@pytest.mark.parametrize("kind", LOOPS)
def test_a_wait_for_a_lock_that_is_cancelled_when_it_is_woken_has_ended(
    kind: str, db_path: Path
) -> None:
    async def main() -> None:
        inside: list[int] = []

        async def wait(cache: AsyncCachetronaut) -> None:
            async with cache.lock("lock"):
                inside.append(1)

        async with AsyncCachetronaut(db_path) as cache:
            # That the lock is free is told by this thread, between two steps of the loop.
            with Cachetronaut(db_path) as holder:
                for count in range(12):
                    with holder.lock("lock"):
                        task = asyncio.ensure_future(wait(cache))
                        await has_waited(cache)
                    await steps(count % 6)
                    was_told = task.cancel()
                    await asyncio.wait([task], timeout=PATIENCE)
                    assert task.cancelled() == was_told, f"after {count % 6} steps"

    run(kind, main())


def test_a_wait_for_a_lock_that_is_cancelled_was_not_too_long(
    observer: Observer, anywhere_async: Callable[..., AsyncCachetronaut]
) -> None:
    async def main() -> None:
        async with anywhere_async() as cache, cache.lock("lock"):
            for count in range(30):
                task = asyncio.ensure_future(cache.lock("lock").__aenter__())
                await steps(count)
                task.cancel()
                await asyncio.wait([task])
                assert task.cancelled()
            await cache.flush()

    run("asyncio", main())
    assert observer.findings == []


@pytest.mark.parametrize("failure", ["busy", "never opened"])
def test_a_failure_after_a_wait_was_cancelled_is_nobodys(
    failure: str, db_path: Path, observer: Observer, lock_holder: Child
) -> None:
    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(observer.hear)
        cache = AsyncCachetronaut(db_path, busy_timeout=0.01)
        if failure == "busy":
            await cache.init_async()
            lock_holder.ask("BEGIN IMMEDIATE")
        task = asyncio.ensure_future(cache.lock("lock").__aenter__())
        await steps(2)
        task.cancel()
        await asyncio.wait([task])
        with pytest.raises(StoreBusyError if failure == "busy" else CorruptStoreError):
            await cache.set("key", 1)
        gc.collect()
        await steps(3)
        if failure == "busy":
            lock_holder.ask("COMMIT")
        await cache.shutdown()

    if failure == "never opened":
        db_path.write_bytes(b"this is no cache" * 1_000)
    run("asyncio", main())
    assert observer.findings == []


def test_a_refresh_under_way_when_the_cache_is_closed_ends_in_silence(
    anywhere_async: Callable[..., AsyncCachetronaut], clock: ManualClock, observer: Observer
) -> None:
    async def main() -> None:
        cache = anywhere_async()
        go_on, is_read = asyncio.Event(), threading.Event()
        is_second: list[bool] = []

        @cache(ttl=10, stale_while_revalidate="1d", key_builder=lambda *_: "key")
        async def slow() -> int:
            if is_second:
                await go_on.wait()
            return 1

        await slow()
        is_second.append(True)
        clock.advance(20)
        others = asyncio.all_tasks()
        await slow()
        (refresh,) = asyncio.all_tasks() - others
        await cache.flush()
        # Something that reads holds the end up.
        reading = cache._client._send(is_read.wait, False)
        closing = asyncio.ensure_future(cache.shutdown())
        with suppress(CacheClosedError):
            while not closing.done():
                cache._client._send(int, True)
                await asyncio.sleep(0)
        assert not closing.done()
        go_on.set()
        await asyncio.wait([refresh])
        is_read.set()
        await asyncio.wait([closing, reading])

    run("asyncio", main())
    assert observer.findings == []


@pytest.mark.parametrize("lock", ["thread", "process"])
@pytest.mark.parametrize("way", ["decorated", "get_or_compute"])
def test_a_result_that_comes_after_the_end_is_in_the_error(
    way: str, lock: Any, anywhere_async: Callable[..., AsyncCachetronaut]
) -> None:
    async def main() -> None:
        cache = anywhere_async()

        async def late() -> int:
            await cache.shutdown()
            return 42

        call = functools.partial(cache.get_or_compute, "key", late, lock=lock)
        if way == "decorated":
            call = cache(late, lock=lock)
        with pytest.raises(CacheClosedError) as caught:
            await call()
        assert caught.value.value == 42

    run("asyncio", main())


def test_what_a_loop_that_has_ended_left_to_be_done_is_done_for_the_next(
    anywhere_async: Callable[..., AsyncCachetronaut],
) -> None:
    cache = anywhere_async()
    kept: list[asyncio.Future[Any]] = []

    async def begin() -> None:
        await cache.set_many({"set": "old", "deleted": "old", "n": 1})
        await cache.get_many(["set", "deleted", "n"])
        work = [cache.set("set", "new"), cache.delete("deleted"), cache.incr("n")]
        kept.extend(map(asyncio.ensure_future, work))
        await asyncio.sleep(0)

    async def look() -> None:
        await cache.flush()
        assert await cache.get_many(["set", "deleted", "n"]) == {"set": "new", "n": 2}
        assert await cache.check() == []
        await cache.shutdown()

    run("asyncio", begin())
    run("asyncio", look())
