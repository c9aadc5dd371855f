"""Threads, destructors and the garbage collector: no stale value, no deadlock, no leak."""

from __future__ import annotations

import faulthandler
import gc
import random
import sys
import threading
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from cachetronomy import CacheClosedError, Cachetronaut

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cachetronomy._core import ManualClock

THREADS = 8
STEPS = 600


@pytest.fixture(autouse=True)
def no_deadlock() -> Iterator[None]:
    """End the process with every thread's traceback, should a test hang with the lock held."""
    faulthandler.dump_traceback_later(55, exit=True, file=sys.__stderr__)
    yield
    faulthandler.cancel_dump_traceback_later()


def run_all(*work: Callable[[], None]) -> None:
    """Run each in a thread of its own; the first error of any is the caller's."""
    errors: list[BaseException] = []

    def guarded(one: Callable[[], None]) -> None:
        try:
            one()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=[one]) for one in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


class Oracle:
    """What a reader may see of keys that one thread each writes: never less than `done`."""

    def __init__(self, clients: list[Cachetronaut]) -> None:
        """Begin with nothing written."""
        self.clients = clients
        self.begun = [0] * THREADS
        self.done = [0] * THREADS
        self.double = clients[0](self.compute_double)

    @staticmethod
    def compute_double(number: int) -> int:
        """Compute what is cached."""
        return 2 * number

    def check_own(self, cache: Cachetronaut, owner: int) -> None:
        """Read a single writer's key: at least what was written before, at most what was begun."""
        least = self.done[owner]
        value = cache.get(f"own{owner}")
        assert least <= (value or 0) <= self.begun[owner], (owner, least, value)

    def check_many(self, cache: Cachetronaut) -> None:
        """Do the same for all of them at once."""
        least = list(self.done)
        values = cache.get_many([f"own{owner}" for owner in range(THREADS)])
        for owner in range(THREADS):
            value = values.get(f"own{owner}", 0)
            assert least[owner] <= value <= self.begun[owner], (owner, least[owner], value)

    def work(self, me: int) -> None:
        """Do one thread's part."""
        dice, cache = random.Random(me), self.clients[me % len(self.clients)]
        for step in range(1, STEPS + 1):
            kind = dice.randrange(12)
            if kind <= 3:
                self.begun[me] += 1
                if kind == 0:
                    cache.set_many({f"own{me}": self.begun[me], f"other{me}": step})
                else:
                    cache.set(f"own{me}", self.begun[me])
                self.done[me] = self.begun[me]
                assert cache.get(f"own{me}") == self.done[me]
            elif kind <= 6:
                self.check_own(cache, dice.randrange(THREADS))
            elif kind == 7:
                self.check_many(cache)
            elif kind == 8:
                shared = f"shared{dice.randrange(5)}"
                cache.set(shared, [shared, me, step], tags=[f"tag{dice.randrange(3)}"])
                value = cache.get(shared)
                assert value is None or value[0] == shared
            elif kind == 9:
                shared = f"shared{dice.randrange(5)}"
                dice.choice([cache.delete, cache.evict])(shared)
                cache.clear_by_tags(f"tag{dice.randrange(3)}")
            elif kind == 10:
                number = dice.randrange(30)
                assert self.double(number) == 2 * number
            else:
                act = dice.choice([cache.evict_all, cache.all_keys, cache.memory_keys, cache.stats])
                act()
                cache.clear_expired()


@pytest.mark.parametrize("items", [0, 5, None])
@pytest.mark.parametrize("where", ["one client", "two clients", ":memory:"])
def test_no_thread_reads_what_was_never_written_or_was_replaced(
    open_cache: Callable[..., Cachetronaut], where: str, items: int | None
) -> None:
    if where == ":memory:":
        clients = [open_cache(":memory:", max_items_in_memory=items)]
    else:
        count = 1 + (where == "two clients")
        clients = [open_cache(max_items_in_memory=items) for _ in range(count)]
    oracle = Oracle(clients)
    switch = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        run_all(*(lambda me=me: oracle.work(me) for me in range(THREADS)))
    finally:
        sys.setswitchinterval(switch)
    for cache in clients:
        for owner in range(THREADS):
            assert cache.get(f"own{owner}", default=0) == oracle.done[owner]
        stats = cache.stats()
        assert stats["memory_keys"] <= (1_000_000 if items is None else items)
        assert stats["errors"] == 0


def test_closing_while_others_read_and_write_is_an_error_to_them_alone(db_path: Path) -> None:
    for _ in range(10):
        cache = Cachetronaut(db_path)
        begun = threading.Barrier(5)

        def work(cache: Cachetronaut = cache, begun: threading.Barrier = begun) -> None:
            begun.wait()
            try:
                for number in range(1_000_000):
                    cache.set(f"k{number % 7}", number)
                    cache.get_many([f"k{n}" for n in range(7)])
            except CacheClosedError:
                return

        def close(cache: Cachetronaut = cache, begun: threading.Barrier = begun) -> None:
            begun.wait()
            for _ in range(50):
                cache.get("k1")
            cache.close()

        run_all(work, work, work, work, close)
    with Cachetronaut(db_path) as cache:
        assert cache.check() == []


def watched(act: Callable[[], object]) -> set[int]:
    """Make a value whose end calls `act`, wherever its last reference is dropped."""
    value = {1, 2}
    weakref.finalize(value, act).atexit = False
    return value


DROPS: dict[str, Any] = {
    "set": lambda cache, clock: cache.set("key", 1),
    "set_many": lambda cache, clock: cache.set_many({"key": 1}),
    "delete": lambda cache, clock: cache.delete("key"),
    "delete_many": lambda cache, clock: cache.delete_many(["key"]),
    "evict": lambda cache, clock: cache.evict("key"),
    "evict_all": lambda cache, clock: cache.evict_all(),
    "clear_all": lambda cache, clock: cache.clear_all(),
    "clear_by_tags": lambda cache, clock: cache.clear_by_tags("t"),
    "clear_expired": lambda cache, clock: (clock.advance(60), cache.clear_expired()),
    "an expired get": lambda cache, clock: (clock.advance(60), cache.get("key")),
    "an expired get_many": lambda cache, clock: (clock.advance(60), cache.get_many(["key"])),
    "capacity": lambda cache, clock: cache.set_many({f"k{n}": n for n in range(20)}),
    "close": lambda cache, clock: cache.close(),
}


@pytest.mark.parametrize("drop", DROPS.values(), ids=DROPS)
def test_a_destructor_may_use_the_cache(
    open_cache: Callable[..., Cachetronaut], clock: ManualClock, drop: Any
) -> None:
    cache = open_cache(max_items_in_memory=3)
    ended: list[str] = []

    def at_the_end() -> None:
        try:
            cache.get("key")
            cache.set("key", "from the destructor", ttl=600)
            cache.set_many({f"d{n}": n for n in range(5)}, tags=["t"])
            cache.evict_all()
            cache.clear_by_tags("t")
            cache.stats()
            cache.check()
            ended.append("open")
        except CacheClosedError:
            ended.append("closed")

    cache.set("key", watched(at_the_end), ttl=60, tags=["t"])
    assert ended == []
    drop(cache, clock)
    assert ended == ["closed" if drop is DROPS["close"] else "open"]


class Meddler(str):
    """A key that uses the cache whenever it is hashed or compared."""

    cache: Cachetronaut
    calls = 0
    __slots__ = ()

    def meddle(self) -> None:
        """Do everything to the cache."""
        type(self).calls += 1
        if type(self).calls % 2:
            self.cache.set("other", 1)
            self.cache.get_many(["key", "other"])
            self.cache.evict_all()
            self.cache.delete("other")

    def __hash__(self) -> int:
        self.meddle()
        return str.__hash__(self)

    def __eq__(self, other: object) -> bool:
        self.meddle()
        return str.__eq__(self, other)


def test_keys_whose_hash_and_comparison_use_the_cache(
    open_cache: Callable[..., Cachetronaut],
) -> None:
    cache = open_cache(max_items_in_memory=2)
    mine = type("Mine", (Meddler,), {"cache": cache})
    for _ in range(20):
        cache.set(mine("key"), "value")
        assert cache.get(mine("key")) == "value"
        assert cache.get_many([mine("key"), "key", mine("key")]) == {"key": "value"}
        cache.set_many({mine("key"): "value", mine("more"): 1})
        cache.evict(mine("key"))
        assert cache.delete_many([mine("key"), mine("more")]) == 2
        assert cache.delete(mine("key")) is False
    assert mine.calls > 100  # type: ignore[attr-defined]


def test_arguments_whose_repr_uses_the_cache(anywhere: Cachetronaut) -> None:
    class Argument:
        def __repr__(self) -> str:
            anywhere.set("other", 1)
            function(1)
            anywhere.clear_all()
            return "Argument()"

    calls: list[object] = []

    @anywhere
    def function(argument: object) -> str:
        calls.append(argument)
        return "result"

    for _ in range(5):
        assert function(Argument()) == function(argument=Argument()) == "result"


class Cycle:
    """Garbage that only the collector finds, and that uses the cache when it goes."""

    def __init__(self, cache: Cachetronaut) -> None:
        """Tie the knot."""
        self.cache = cache
        self.itself = self

    def __del__(self) -> None:
        """Use the cache."""
        try:
            self.cache.set("from del", 1)
            self.cache.get("key")
        except CacheClosedError:
            pass


def test_the_collector_may_run_inside_every_call(
    open_cache: Callable[..., Cachetronaut], clock: ManualClock
) -> None:
    cache = open_cache(max_items_in_memory=10)
    function = cache(lambda number: [number])
    threshold = gc.get_threshold()
    gc.set_threshold(1)
    try:
        for number in range(150):
            Cycle(cache)
            cache.set(f"k{number % 20}", [number, {number}], tags=[f"t{number % 3}"], ttl=5)
            assert cache.get(f"k{number % 20}") == [number, {number}]
            cache.get_many([f"k{n}" for n in range(20)])
            assert function(number % 30) == [number % 30]
            cache.clear_by_tags(f"t{number % 5}")
            clock.advance(1)
            cache.clear_expired()
            cache.stats()
            own = Cachetronaut(":memory:")
            own.set("number", number)
            Cycle(own)
    finally:
        gc.set_threshold(*threshold)
    gc.collect()
