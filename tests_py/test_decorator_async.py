"""`@cache` on coroutine functions: as on plain ones, and the event loop waits for no commit."""

from __future__ import annotations

import asyncio
import inspect
import threading
from typing import TYPE_CHECKING, Any

import pytest
from cachetronomy import CacheClosedError, Cachetronaut, SerializationError

if TYPE_CHECKING:
    from collections.abc import Callable

    from cachetronomy._core import ManualClock
    from conftest import Child, Tier


def counted(cache: Any, **options: Any) -> tuple[Any, list[Any]]:
    """Decorate a coroutine function that lists its calls."""
    calls: list[Any] = []

    @cache(**options)
    async def function(a: Any, b: Any = 2, **named: Any) -> str:
        calls.append((a, b, named))
        await asyncio.sleep(0)
        return f"result {len(calls)}"

    return function, calls


def test_a_call_is_computed_once_in_either_tier(cache: Cachetronaut, tier: Tier) -> None:
    calls = []

    async def double(number: int) -> int:
        calls.append(number)
        await asyncio.sleep(0)
        return 2 * number

    async def main(client: Cachetronaut) -> list[int]:
        function = client(double)
        return [await function(4), await function(number=5), await function(4)]

    assert asyncio.run(main(cache)) == [8, 10, 8]
    assert asyncio.run(main(tier(cache))) == [8, 10, 8]
    assert calls == [4, 5]


def test_the_wrapper_looks_like_the_coroutine_function(anywhere: Cachetronaut) -> None:
    async def function(a: int, *, b: str = "x") -> list[int]:
        """Say what it does."""
        return [a]

    for wrapper in (anywhere(function), anywhere(ttl=1)(function)):
        assert inspect.iscoroutinefunction(wrapper)
        assert wrapper.__name__ == "function"
        assert wrapper.__qualname__ == function.__qualname__
        assert wrapper.__doc__ == "Say what it does."
        assert wrapper.__wrapped__ is function
        assert wrapper.cache is anywhere
        assert inspect.signature(wrapper) == inspect.signature(function)
        assert wrapper.key_for(1) == f"{__name__}.{function.__qualname__}(a=1, b='x')"


def test_calls_from_two_runs_of_the_loop_share_results(anywhere: Cachetronaut) -> None:
    function, calls = counted(anywhere)
    assert asyncio.run(function(1)) == "result 1"
    assert asyncio.run(function(1)) == "result 1"
    anywhere.evict_all()
    assert asyncio.run(function(a=1, b=2)) == "result 1"
    assert asyncio.run(function(2)) == "result 2"
    assert len(calls) == 2


def test_options_are_those_of_plain_functions(anywhere: Cachetronaut, clock: ManualClock) -> None:
    function, _ = counted(
        anywhere, ttl="1m", tags="t", version=3, prefer="msgpack", key_builder=lambda f, a, k: "own"
    )
    assert asyncio.run(function(object())) == "result 1"
    assert anywhere.get("own", version=3) == "result 1"
    clock.advance(60)
    assert asyncio.run(function(1)) == "result 2"
    assert anywhere.clear_by_tags("t") == ["own"]
    assert asyncio.run(function(1)) == "result 3"


def test_a_cached_none_is_a_hit(anywhere: Cachetronaut) -> None:
    calls = []

    @anywhere
    async def nothing() -> None:
        calls.append(1)

    for _ in range(3):
        assert asyncio.run(nothing()) is None
    assert calls == [1]


def test_an_exception_passes_through_and_is_not_cached(anywhere: Cachetronaut) -> None:
    outcomes: list[Any] = [ValueError("mine"), "computed"]

    @anywhere
    async def function() -> str:
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return str(outcome)

    with pytest.raises(ValueError, match="mine"):
        asyncio.run(function())
    assert anywhere.all_keys() == []
    assert asyncio.run(function()) == asyncio.run(function()) == "computed"


def test_a_result_that_cannot_be_stored_is_in_the_error(anywhere: Cachetronaut) -> None:
    result = object()

    @anywhere
    async def function() -> object:
        return result

    with pytest.raises(SerializationError) as caught:
        asyncio.run(function())
    assert caught.value.value is result
    assert anywhere.all_keys() == []


def test_arguments_that_do_not_fit_raise_the_functions_own_error(anywhere: Cachetronaut) -> None:
    function, calls = counted(anywhere)
    with pytest.raises(TypeError, match=r"function\(\)"):
        asyncio.run(function())
    assert calls == []


def test_methods(anywhere: Cachetronaut) -> None:
    class Shop:
        def __init__(self, name: str) -> None:
            self.name = name

        def __repr__(self) -> str:
            return self.name

        @anywhere
        async def price(self, item: str) -> str:
            return f"{self.name} {item}"

        @classmethod
        @anywhere
        async def kind(cls, item: str) -> str:
            return f"kind {item}"

    async def main() -> list[str]:
        a, b = Shop("a"), Shop("b")
        return [await a.price("x"), await b.price("x"), await a.price("x"), await Shop.kind("y")]

    assert asyncio.run(main()) == ["a x", "b x", "a x", "kind y"]
    assert inspect.iscoroutinefunction(Shop("a").price)


def test_a_function_that_changes_its_argument_is_cached_under_what_it_was_given(
    anywhere: Cachetronaut,
) -> None:
    @anywhere
    async def drain(items: list[int]) -> int:
        return sum(items.pop() for _ in range(len(items)))

    assert [asyncio.run(drain([1, 2])), asyncio.run(drain([1, 2]))] == [3, 3]
    assert asyncio.run(drain([])) == 0


def test_many_calls_at_once(cache: Cachetronaut) -> None:
    @cache
    async def square(number: int) -> int:
        await asyncio.sleep(0)
        return number**2

    async def main() -> list[int]:
        return await asyncio.gather(*(square(n % 50) for n in range(500)))

    assert asyncio.run(main()) == [(n % 50) ** 2 for n in range(500)]
    assert len(cache.all_keys()) == 50
    assert asyncio.run(main()) == [(n % 50) ** 2 for n in range(500)]


def test_cancelling_while_it_computes_leaves_the_cache_usable(cache: Cachetronaut) -> None:
    started: list[int] = []

    @cache
    async def slow(number: int) -> int:
        started.append(number)
        if len(started) == 1:
            await asyncio.Event().wait()
        return number

    async def main() -> None:
        task = asyncio.ensure_future(slow(1))
        while not started:  # noqa: ASYNC110 - no event may be set from where it is counted
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert cache.all_keys() == []
        assert await slow(1) == 1
        assert await slow(1) == 1

    asyncio.run(main())
    assert started == [1, 1]


def test_the_loop_runs_on_while_a_commit_waits_for_a_lock(
    open_cache: Callable[..., Cachetronaut], lock_holder: Child
) -> None:
    cache = open_cache(busy_timeout=40)
    function, calls = counted(cache)

    async def main() -> str:
        lock_holder.ask("BEGIN IMMEDIATE")
        task = asyncio.ensure_future(function(1))
        while not calls:  # noqa: ASYNC110 - the same
            await asyncio.sleep(0)
        for _ in range(1_000):  # A commit on this thread would end the first of these rounds.
            await asyncio.sleep(0)
            assert not task.done()
        lock_holder.ask("COMMIT")
        return str(await task)

    assert asyncio.run(main()) == "result 1"
    assert cache.get(function.key_for(1)) == "result 1"


def test_a_hit_in_the_store_waits_for_no_writer(
    open_cache: Callable[..., Cachetronaut], lock_holder: Child
) -> None:
    cache = open_cache(busy_timeout=0.1)
    function, calls = counted(cache)
    asyncio.run(function(1))
    cache.evict_all()
    lock_holder.ask("BEGIN IMMEDIATE")
    assert asyncio.run(function(1)) == "result 1"
    assert len(calls) == 1
    lock_holder.ask("COMMIT")


def test_cancelling_while_the_commit_waits_leaves_the_cache_usable(
    open_cache: Callable[..., Cachetronaut], lock_holder: Child
) -> None:
    cache = open_cache(busy_timeout=40)
    function, calls = counted(cache)

    async def main() -> None:
        lock_holder.ask("BEGIN IMMEDIATE")
        task = asyncio.ensure_future(function(1))
        while not calls:  # noqa: ASYNC110 - the same
            await asyncio.sleep(0)
        for _ in range(10):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        lock_holder.ask("COMMIT")
        assert await function(2) == "result 2"

    asyncio.run(main())
    assert asyncio.run(function(1)) in ("result 1", "result 3")
    assert asyncio.run(function(2)) == "result 2"


def test_the_function_runs_on_the_thread_of_its_loop(anywhere: Cachetronaut) -> None:
    @anywhere
    async def where() -> int:
        return threading.get_ident()

    assert asyncio.run(where()) == threading.get_ident()


def test_a_loop_in_each_of_several_threads(cache: Cachetronaut) -> None:
    results: list[list[int]] = []

    @cache
    async def square(number: int) -> int:
        await asyncio.sleep(0)
        return number**2

    async def main() -> list[int]:
        return await asyncio.gather(*(square(n) for n in range(40)))

    threads = [threading.Thread(target=lambda: results.append(asyncio.run(main()))) for _ in "1234"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert results == [[n**2 for n in range(40)]] * 4


def test_use_after_shutdown_is_an_error_that_computes_nothing(db_path: object) -> None:
    cache = Cachetronaut(db_path)
    function, calls = counted(cache)
    asyncio.run(function(1))
    cache.shutdown()
    for argument in (1, 2):
        with pytest.raises(CacheClosedError):
            asyncio.run(function(argument))
    assert len(calls) == 1
