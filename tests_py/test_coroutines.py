"""The coroutines of decorated functions and of `get`: as Python's own in all that can be asked."""

from __future__ import annotations

import asyncio
import collections.abc
import gc
import inspect
import sys
import warnings
import weakref
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest
from cachetronomy import AsyncCachetronaut, Cachetronaut, SerializationError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

    from cachetronomy._core import ManualClock

    Make = Callable[[], Coroutine[Any, Any, Any]]

VALUE = ("a tuple", "which StopIteration would take apart")


async def whole() -> Any:
    """Return the value after a while."""
    await asyncio.sleep(0)
    return VALUE


@pytest.fixture
def run() -> Iterator[Callable[[Any], Any]]:
    """Run coroutines in one event loop."""
    loop = asyncio.new_event_loop()
    yield loop.run_until_complete
    loop.close()


@pytest.fixture(params=["python", "hit", "miss", "get", "get from the file", "of the sync client"])
def make(request: pytest.FixtureRequest, run: Callable[[Any], Any], db_path: Any) -> Iterator[Make]:
    """Make a coroutine: one of Python's, which says what is right, or one of ours."""
    cache = AsyncCachetronaut(db_path)
    plain = Cachetronaut(db_path)
    run(cache.set("key", VALUE))
    cached = (plain if request.param == "of the sync client" else cache)(whole)
    if request.param in {"hit", "of the sync client"}:
        run(cached())
    if request.param == "get from the file":
        run(cache.evict("key"))
    yield {
        "python": whole,
        "get": lambda: cache.get("key"),
        "get from the file": lambda: cache.get("key"),
    }.get(request.param, cached)
    run(cache.shutdown())
    plain.close()


def steps(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Go through it by hand, as far as it needs no event loop."""
    while True:
        try:
            coroutine.send(None)
        except StopIteration as end:
            return end.value


def test_it_is_awaited_and_run_however_a_coroutine_is(
    make: Make, run: Callable[[Any], Any]
) -> None:
    async def main() -> None:
        assert await make() == VALUE
        assert await asyncio.create_task(make()) == VALUE
        assert await asyncio.ensure_future(make()) == VALUE
        assert await asyncio.wait_for(make(), 20) == VALUE
        assert await asyncio.shield(make()) == VALUE
        assert await asyncio.gather(make(), make()) == [VALUE, VALUE]
        done = asyncio.run_coroutine_threadsafe(make(), asyncio.get_running_loop())
        assert await asyncio.wrap_future(done) == VALUE

    run(main())
    assert run(make()) == VALUE


def test_it_is_taken_for_a_coroutine(make: Make) -> None:
    coroutine = make()
    assert isinstance(coroutine, collections.abc.Coroutine)
    assert not isinstance(coroutine, collections.abc.Iterable)
    assert asyncio.iscoroutine(coroutine)
    assert inspect.isawaitable(coroutine)
    assert coroutine.__name__ in {"whole", "get"}
    assert coroutine.__qualname__ in repr(coroutine)
    assert repr(coroutine).startswith("<coroutine object ")
    assert weakref.ref(coroutine)() is coroutine
    coroutine.close()


def test_its_state_can_be_asked(make: Make) -> None:
    coroutine: Any = make()
    assert inspect.getcoroutinestate(coroutine) == "CORO_CREATED"
    assert coroutine.cr_await is None
    assert coroutine.cr_code.co_flags & inspect.CO_COROUTINE
    coroutine.close()
    assert inspect.getcoroutinestate(coroutine) == "CORO_CLOSED"
    assert coroutine.cr_frame is None


def test_a_task_that_waits_for_it_can_be_shown(make: Make, run: Callable[[Any], Any]) -> None:
    async def main() -> None:
        task = asyncio.create_task(make())
        name = task.get_coro().__qualname__  # type: ignore[union-attr]
        assert name in repr(task)
        await asyncio.sleep(0)
        assert name in repr(task)
        task.get_stack()
        assert await task == VALUE
        assert name in repr(task)

    run(main())


def test_it_returns_once(make: Make, run: Callable[[Any], Any]) -> None:
    coroutine = make()
    assert run(coroutine) == VALUE
    with pytest.raises(RuntimeError, match="cannot reuse already awaited coroutine"):
        coroutine.send(None)
    with pytest.raises(RuntimeError, match="cannot reuse already awaited coroutine"):
        coroutine.throw(ValueError)
    coroutine.close()


def test_one_that_was_closed_is_over(make: Make) -> None:
    coroutine = make()
    coroutine.close()
    coroutine.close()
    with pytest.raises(RuntimeError, match="cannot reuse already awaited coroutine"):
        coroutine.send(None)


@pytest.mark.filterwarnings("ignore:the .* signature of throw:DeprecationWarning")
@pytest.mark.parametrize(
    "thrown", [(ValueError("thrown"),), (ValueError, "thrown"), (ValueError, ValueError("thrown"))]
)
def test_what_is_thrown_into_it_comes_out(make: Make, thrown: tuple[Any, ...]) -> None:
    coroutine = make()
    with pytest.raises(ValueError, match=r"^thrown$"):
        coroutine.throw(*thrown)
    with pytest.raises(RuntimeError, match="cannot reuse already awaited coroutine"):
        coroutine.send(None)


def test_nothing_can_be_sent_before_it_began(make: Make) -> None:
    coroutine = make()
    with pytest.raises(TypeError, match="can't send non-None value to a just-started coroutine"):
        coroutine.send(1)
    coroutine.close()


def test_one_that_nobody_awaits_is_told_of(make: Make) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        coroutine = make()
        name = coroutine.__qualname__
        del coroutine
        gc.collect()
    assert [str(one.message) for one in caught] == [f"coroutine '{name}' was never awaited"]


def test_one_that_nobody_awaits_hides_no_exception(make: Make) -> None:
    def leave() -> None:
        coroutine = make()
        coroutine.__name__  # noqa: B018 - so that it is used
        raise KeyError("shown")

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(KeyError, match="shown"):
            leave()


def test_one_that_is_cancelled_is_over(make: Make, run: Callable[[Any], Any]) -> None:
    async def main() -> None:
        task = asyncio.create_task(make())
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await make() == VALUE

    run(main())


class Circle:
    """An argument that holds the coroutine of its call."""

    coroutine: Any

    def __cache_key__(self) -> str:
        return "circle"


@pytest.mark.parametrize("has_begun", [False, True])
def test_a_circle_through_it_is_collected(run: Callable[[Any], Any], has_begun: bool) -> None:
    with Cachetronaut(":memory:") as cache:

        @cache(lock=None)
        async def function(circle: Circle) -> Circle:
            await asyncio.sleep(0)
            return circle

        async def make() -> weakref.ref[Circle]:
            circle = Circle()
            circle.coroutine = function(circle)
            if has_begun:
                circle.coroutine.send(None)
            return weakref.ref(circle)

        seen = run(make())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            gc.collect()
        assert seen() is None


# It reads when it is awaited, not when it is made.


@pytest.fixture
def cache(run: Callable[[Any], Any], clock: ManualClock) -> Iterator[AsyncCachetronaut]:
    """Open an async client whose clock is turned by hand."""
    cache = AsyncCachetronaut(":memory:", _clock=clock)
    yield cache
    run(cache.shutdown())


def test_what_is_written_before_it_is_awaited_is_read(
    cache: AsyncCachetronaut, run: Callable[[Any], Any]
) -> None:
    async def main() -> None:
        await cache.set("key", "old")
        reading = cache.get("key")
        await cache.set("key", "new")
        assert await reading == "new"

    run(main())


def test_what_ends_before_it_is_awaited_is_a_miss(
    cache: AsyncCachetronaut, clock: ManualClock, run: Callable[[Any], Any]
) -> None:
    calls = []

    @cache(ttl=10)
    async def function() -> int:
        calls.append(None)
        return len(calls)

    async def main() -> None:
        await cache.set("key", "value", ttl=10)
        assert await function() == 1
        reading, calling = cache.get("key"), function()
        clock.advance(11)
        assert await reading is None
        assert await calling == 2

    run(main())


def test_what_is_never_awaited_calls_nothing(
    cache: AsyncCachetronaut, run: Callable[[Any], Any]
) -> None:
    calls = []

    @cache
    async def function() -> None:
        calls.append(None)

    function().close()
    run(asyncio.sleep(0))
    assert not calls


def test_by_hand_a_hit_takes_one_step(cache: AsyncCachetronaut, run: Callable[[Any], Any]) -> None:
    @cache
    async def function(number: int) -> tuple[int]:
        return (number,)

    assert run(function(1)) == (1,)
    assert steps(function(1)) == (1,)
    with pytest.raises(StopIteration) as end:
        next(function(1).__await__())
    assert end.value.value == (1,)


# `get` is one of the class's methods, however it is called.


def test_get_is_a_coroutine_function(cache: AsyncCachetronaut) -> None:
    for get in (AsyncCachetronaut.get, cache.get):
        assert inspect.iscoroutinefunction(get)
        assert "the value of a key" in (get.__doc__ or "")
        assert get.__name__ == "get"
        assert get.__qualname__ == "AsyncCachetronaut.get"
        assert inspect.isroutine(get)
    parameters = list(inspect.signature(cache.get).parameters)
    assert parameters == list(inspect.signature(Cachetronaut.get).parameters)[1:]


def test_get_takes_its_arguments_in_every_shape(
    cache: AsyncCachetronaut, run: Callable[[Any], Any]
) -> None:
    run(cache.set("key", "1", version=2))
    assert run(cache.get("key")) == "1"
    assert run(cache.get(key="key")) == "1"
    assert run(AsyncCachetronaut.get(cache, "key")) == "1"
    assert run(AsyncCachetronaut.get(cache, key="key")) == "1"
    assert run(cache.get("key", int)) == 1
    assert run(cache.get("key", default="none", version=3)) == "none"
    assert run(cache.get("none")) is None
    for call in (lambda: cache.get(), lambda: cache.get("key", absent=1)):  # noqa: PLW0108
        with pytest.raises(TypeError, match=r"get\(\)"):
            call()


def test_a_subclass_may_have_a_get_of_its_own(run: Callable[[Any], Any]) -> None:
    class Loud(AsyncCachetronaut):
        async def get(self, key: str, *args: Any, **kwargs: Any) -> Any:
            return f"{await super().get(key, *args, **kwargs)}!"

    cache = Loud(":memory:")
    run(cache.set("key", "value"))
    assert run(cache.get("key")) == "value!"
    run(cache.shutdown())


def test_a_mock_of_the_client_is_awaited(run: Callable[[Any], Any]) -> None:
    client = mock.create_autospec(AsyncCachetronaut, instance=True)
    client.get.return_value = 1
    assert run(client.get("key")) == 1
    client.get.assert_awaited_once_with("key")


def test_hits_keep_nothing_alive(cache: AsyncCachetronaut, run: Callable[[Any], Any]) -> None:
    key = "a key that nobody else has"
    value = [object.__name__]

    @cache
    async def function(text: str) -> list[str]:
        return value

    async def main() -> None:
        await cache.set(key, value)
        assert await cache.get(key) == await function(key)
        before = sys.getrefcount(key)
        for _ in range(100):
            await cache.get(key)
            await function(key)
        assert sys.getrefcount(key) == before

    run(main())


def test_one_that_was_not_awaited_is_no_value_and_no_argument(
    cache: AsyncCachetronaut, make: Make, run: Callable[[Any], Any]
) -> None:
    @cache
    async def function(argument: object) -> None:
        raise AssertionError

    coroutine = make()
    with pytest.raises(SerializationError, match="await it, and store what it returns"):
        run(cache.set("key", coroutine))
    with pytest.raises(TypeError, match=r'"argument" is of type .*: await it'):
        run(function(coroutine))
    coroutine.close()
