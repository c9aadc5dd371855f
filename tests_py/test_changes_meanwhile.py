"""A key that is changed while its value is computed: what was computed from before is not kept."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from typing import TYPE_CHECKING, Any

import pytest
from cachetronomy import Cachetronaut

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from cachetronomy._core import ManualClock

CHANGES: dict[str, Callable[[Cachetronaut, Any], object]] = {
    "delete": lambda cache, _: cache.delete("k"),
    "delete_many": lambda cache, _: cache.delete_many(["k"]),
    "delete_match": lambda cache, _: cache.delete_match("*"),
    "clear_by_tags": lambda cache, _: cache.clear_by_tags(["t", "u"]),
    "clear_by_tags, exact": lambda cache, _: cache.clear_by_tags(["t"], exact_match=True),
    "clear_by_profile": lambda cache, _: cache.clear_by_profile("default"),
    "clear_all": lambda cache, _: cache.clear_all(),
    "another client": lambda cache, _: Cachetronaut(cache.db_path).delete("k"),
    "invalidate": lambda _, cached: cached.invalidate(),
    "cache_clear": lambda _, cached: cached.cache_clear(),
}
HARMLESS: dict[str, Callable[[Cachetronaut, ManualClock], object]] = {
    "another key": lambda cache, _: cache.set("other", 1),
    "another tag": lambda cache, _: cache.clear_by_tags(["other"]),
    "more tags": lambda cache, _: cache.clear_by_tags(["t", "u"], exact_match=True),
    "another pattern": lambda cache, _: cache.delete_match("other*"),
    "a sweep": lambda cache, _: cache.clear_expired(),
    "eviction": lambda cache, _: cache.evict_all(),
}


class Computation:
    """Computes on another thread until it is let go; by then the world has changed."""

    def __init__(self, cache: Cachetronaut, lock: str | None, way: str) -> None:
        self.world, self.calls = "old", 0
        self.began, self.may_end = threading.Event(), threading.Event()
        self.results: list[str] = []

        def body() -> str:
            self.calls += 1
            seen = self.world
            self.began.set()
            assert self.may_end.wait(20)
            return seen

        async def coroutine() -> str:
            return await asyncio.get_running_loop().run_in_executor(None, body)

        options: dict[str, Any] = {"lock": lock, "tags": ["t"], "ttl": 100}
        self.cached: Any = cache(key_builder=lambda *_: "k", **options)(
            coroutine if way == "coroutine" else body
        )
        if way == "coroutine":
            self.ask: Any = lambda: asyncio.run(self.cached())
        elif way == "get_or_compute":
            self.ask = lambda: cache.get_or_compute("k", body, **options)
        else:
            self.ask = self.cached
        self.thread = threading.Thread(target=lambda: self.results.append(self.ask()))

    def begin(self) -> None:
        self.thread.start()
        assert self.began.wait(20)
        self.world = "new"

    def end(self) -> None:
        self.may_end.set()
        self.thread.join(20)
        assert not self.thread.is_alive()


@pytest.fixture(params=["plain", "coroutine", "get_or_compute"])
def way(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=["thread", "process", None])
def computation(
    request: pytest.FixtureRequest, cache: Cachetronaut, way: str
) -> Iterator[Computation]:
    made = Computation(cache, request.param, way)
    yield made
    made.may_end.set()


def change(name: str, cache: Cachetronaut, computation: Computation) -> None:
    result = CHANGES[name](cache, computation.cached)
    if asyncio.iscoroutine(result):
        asyncio.run(result)


@pytest.mark.parametrize("name", CHANGES)
def test_what_was_computed_before_a_change_is_not_kept(
    cache: Cachetronaut, computation: Computation, way: str, name: str
) -> None:
    computation.begin()
    change(name, cache, computation)
    computation.end()
    assert computation.results == ["old"]  # Its call began before the change.
    if way == "get_or_compute" and name == "cache_clear":  # It is no entry of the function.
        assert cache.get("k") == "old"
        return
    assert cache.get("k") is None
    assert computation.ask() == "new"
    assert cache.get("k") == "new"


@pytest.mark.parametrize("name", ["delete", "clear_by_tags", "clear_all"])
def test_who_comes_after_a_change_does_not_wait_for_the_old_result(
    cache: Cachetronaut, way: str, name: str
) -> None:
    computation = Computation(cache, "thread", way)
    computation.begin()
    change(name, cache, computation)
    later = threading.Thread(target=lambda: computation.results.append(computation.ask()))
    computation.began.clear()
    later.start()
    assert computation.began.wait(20)  # It computes, too.
    computation.end()
    later.join(20)
    assert sorted(computation.results) == ["new", "old"]
    assert cache.get("k") == "new"


def test_a_value_that_was_set_meanwhile_stays(
    cache: Cachetronaut, computation: Computation
) -> None:
    computation.begin()
    cache.set("k", "set")
    computation.end()
    assert (computation.results, cache.get("k"), computation.ask()) == (["old"], "set", "set")


@pytest.mark.parametrize("name", HARMLESS)
def test_what_others_change_does_no_harm(
    cache: Cachetronaut, clock: ManualClock, computation: Computation, name: str
) -> None:
    cache.set("k", "expired", ttl=1)
    clock.advance(2)
    computation.begin()
    HARMLESS[name](cache, clock)
    computation.end()
    assert (computation.results, cache.get("k")) == (["old"], "old")


def test_the_newer_of_two_computations_is_kept(cache: Cachetronaut) -> None:
    slow = Computation(cache, None, "plain")
    slow.begin()
    slow.may_end, ended = threading.Event(), slow.may_end
    slow.may_end.set()
    assert slow.cached.refresh() == "new"
    assert cache.get("k") == "new"
    ended.set()
    slow.thread.join(20)
    assert cache.get("k") == "new"


def test_a_refresh_in_the_background_undoes_no_change(
    anywhere: Cachetronaut, clock: ManualClock
) -> None:
    world, may_end, began = ["old"], threading.Event(), threading.Event()
    may_end.set()

    @anywhere(ttl=10, stale_while_revalidate=100)
    def look() -> str:
        seen = world[0]
        began.set()
        assert may_end.wait(20)
        return seen

    look()
    clock.advance(11)
    may_end.clear()
    began.clear()
    assert look() == "old"
    assert began.wait(20)
    world[0] = "new"
    look.invalidate()
    may_end.set()
    for thread in threading.enumerate():
        if thread.name == "cachetronomy-refresh":
            thread.join(20)
    assert look() == "new"


def test_bound_methods_in_cycles_are_collected(cache: Cachetronaut) -> None:
    class Handler:
        def __init__(self) -> None:
            self.callback = self.run

        def __cache_key__(self) -> str:
            return "handler"

        @cache
        def run(self) -> int:
            return 1

    handlers = [weakref.ref(Handler()) for _ in range(200)]
    gc.collect()
    assert [handler() for handler in handlers] == [None] * 200


def test_a_file_is_watched_by_all_its_clients(
    open_cache: Callable[..., Cachetronaut], db_path: Path
) -> None:
    one, other = open_cache(), open_cache(db_path)
    computation = Computation(one, "thread", "plain")
    computation.begin()
    other.clear_by_tags("t")
    computation.end()
    assert other.get("k") is None
