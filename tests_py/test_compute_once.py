"""Of all threads and tasks that miss on one key at once, one computes for the others.

None of these tests may hang: the suite's limit of time for a test is their watchdog.
"""

from __future__ import annotations

import asyncio
import gc
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from cachetronomy import Cachetronaut

TOGETHER = 16


def together(work: Callable[[], Any], count: int = TOGETHER) -> list[Any]:
    """Run it in so many threads that start at once; what each returned or raised."""
    barrier = threading.Barrier(count)
    results: list[Any] = []

    def run() -> None:
        barrier.wait()
        try:
            results.append(work())
        except BaseException as error:
            results.append(error)

    threads = [threading.Thread(target=run) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


class Slow:
    """A computation that lasts until the others have come."""

    def __init__(self, cache: Cachetronaut) -> None:
        self.cache = cache
        self.calls: Counter[Any] = Counter()

    def __call__(self, number: int) -> list[int]:
        self.calls[number] += 1
        # Those who wait have counted their miss.
        enough = threading.Event()
        for _ in range(400):
            if self.cache.stats()["misses"] >= TOGETHER * number:
                break
            enough.wait(0.005)
        return [number]


def test_of_many_threads_one_computes(anywhere: Cachetronaut) -> None:
    slow = Slow(anywhere)

    @anywhere
    def cached(number: int) -> list[int]:
        return slow(number)

    for number in range(1, 20):
        results = together(lambda number=number: cached(number))
        assert all(result is results[0] for result in results)
        assert results[0] == [number]
    assert set(slow.calls.values()) == {1}


def test_without_it_many_compute(anywhere: Cachetronaut) -> None:
    slow = Slow(anywhere)

    def work() -> list[int]:
        value = anywhere.get("1")
        return slow(1) if value is None else value

    together(work)
    assert slow.calls[1] > 1


def test_get_or_compute_computes_once_too(anywhere: Cachetronaut) -> None:
    slow = Slow(anywhere)
    results = together(lambda: anywhere.get_or_compute("k", lambda: slow(1)))
    assert results == [[1]] * TOGETHER
    assert slow.calls[1] == 1


def test_clients_of_one_file_compute_once_together(
    open_cache: Callable[..., Cachetronaut],
) -> None:
    calls: list[int] = []
    both = threading.Barrier(2)
    clients = [open_cache(), open_cache()]

    def compute() -> int:
        calls.append(1)
        threading.Event().wait(0.2)
        return 7

    def work() -> int:
        client = clients[both.wait()]
        return client.get_or_compute("k", compute)

    assert together(work, 2) == [7, 7]
    assert len(calls) == 1


def test_an_exception_is_for_those_who_wait_and_for_nobody_later(anywhere: Cachetronaut) -> None:
    waiting = threading.Event()
    calls: list[int] = []

    @anywhere
    def fails() -> int:
        calls.append(1)
        while anywhere.stats()["misses"] < TOGETHER * len(calls):
            waiting.wait(0.005)
        message = f"call {len(calls)}"
        raise ValueError(message)

    for call in (1, 2):
        results = together(fails)
        assert {str(error) for error in results} == {f"call {call}"}
    assert len(calls) == 2


def test_recursion_goes_on_and_one_that_calls_itself_alike_computes_for_itself(
    anywhere: Cachetronaut,
) -> None:
    @anywhere
    def fibonacci(number: int) -> int:
        return number if number < 2 else fibonacci(number - 1) + fibonacci(number - 2)

    depth: list[int] = []

    @anywhere
    def same() -> int:
        depth.append(1)
        return 1 if len(depth) > 3 else same()

    assert fibonacci(80) == 23416728348467685
    assert same() == 1
    assert len(depth) == 4


def test_functions_that_call_each_other_from_two_threads_do_not_wait_for_each_other(
    anywhere: Cachetronaut,
) -> None:
    both = threading.Barrier(2)
    first = threading.local()

    def meet() -> None:
        if not getattr(first, "met", False):
            first.met = True
            both.wait()

    @anywhere
    def left(stop: bool) -> str:
        meet()
        return "l" if getattr(first, "deep", False) else deeper(right)

    @anywhere
    def right(stop: bool) -> str:
        meet()
        return "r" if getattr(first, "deep", False) else deeper(left)

    def deeper(function: Callable[[bool], str]) -> str:
        first.deep = True
        return function(False)

    order = iter([left, right])
    results = together(lambda: next(order)(False), 2)
    assert all(isinstance(result, str) for result in results), results


def test_of_many_tasks_one_computes(anywhere: Cachetronaut) -> None:
    calls: list[int] = []

    @anywhere
    async def slow(number: int) -> list[int]:
        calls.append(number)
        await asyncio.sleep(0.02)
        return [number]

    async def main() -> None:
        for number in range(10):
            results = await asyncio.gather(*(slow(number) for _ in range(TOGETHER)))
            assert all(result is results[0] for result in results)

    asyncio.run(main())
    assert calls == list(range(10))


def test_threads_with_loops_of_their_own_and_plain_threads_mix(anywhere: Cachetronaut) -> None:
    calls: list[int] = []

    @anywhere(key_builder=lambda *_: "k")
    async def slow() -> int:
        calls.append(1)
        await asyncio.sleep(0.1)
        return 7

    @anywhere(key_builder=lambda *_: "k")
    def plain() -> int:
        calls.append(1)
        threading.Event().wait(0.1)
        return 7

    async def many() -> list[int]:
        return await asyncio.gather(*(slow() for _ in range(4)))

    turn = iter(range(8))
    results = together(lambda: plain() if next(turn) % 2 else asyncio.run(many()), 8)
    assert [result for result in results if result not in (7, [7] * 4)] == []
    assert len(calls) == 1


def test_a_cancelled_leader_leaves_the_lead_to_another(anywhere: Cachetronaut) -> None:
    calls: list[int] = []

    @anywhere
    async def slow() -> int:
        calls.append(1)
        await asyncio.sleep(0.02 if len(calls) > 1 else 60)
        return len(calls)

    async def main() -> None:
        leader, *others = [asyncio.create_task(slow()) for _ in range(5)]
        await asyncio.sleep(0)
        leader.cancel()
        # One that waits goes too, and disturbs nobody.
        others.pop().cancel()
        results = await asyncio.gather(leader, *others, return_exceptions=True)
        assert isinstance(results[0], asyncio.CancelledError)
        assert results[1:] == [2, 2, 2]

    asyncio.run(main())
    assert len(calls) == 2


def test_a_task_that_is_thrown_away_leaves_the_lead(anywhere: Cachetronaut) -> None:
    @anywhere
    async def slow(wait: float) -> int:
        await asyncio.sleep(wait)
        return 1

    coroutine = slow(0)

    async def step() -> None:
        first = slow(60)
        first.send(None)
        first.close()
        coroutine.close()

    asyncio.run(step())
    gc.collect()
    assert asyncio.run(slow(60 if anywhere.get("absent") else 0)) == 1


def test_a_plain_call_on_the_thread_of_the_loop_does_not_wait_for_a_task_of_it(
    anywhere: Cachetronaut,
) -> None:
    @anywhere(key_builder=lambda *_: "k")
    async def slow() -> str:
        await asyncio.sleep(0.05)
        return "slow"

    @anywhere(key_builder=lambda *_: "k")
    def plain() -> str:
        return "plain"

    async def main() -> None:
        task = asyncio.create_task(slow())
        await asyncio.sleep(0)
        assert plain() == "plain"
        assert await task == "slow"

    asyncio.run(main())


def test_a_destructor_in_a_computation_may_ask_for_its_key(anywhere: Cachetronaut) -> None:
    seen: list[Any] = []

    class Noisy:
        def __del__(self) -> None:
            seen.append(function())

    depth: list[int] = []

    @anywhere
    def function() -> int:
        depth.append(1)
        if len(depth) == 1:
            Noisy()
        return len(depth)

    assert function() in {1, 2}
    assert len(seen) == 1


@pytest.mark.parametrize("lock", ["thread", "process"])
@pytest.mark.parametrize(
    "start",
    [
        lambda coroutine: asyncio.wait_for(coroutine, 20),
        asyncio.gather,
        asyncio.ensure_future,
        asyncio.shield,
    ],
    ids=["wait_for", "gather", "task", "shield"],
)
def test_a_task_does_not_wait_for_the_one_that_waits_for_it(
    cache: Cachetronaut, lock: Any, start: Any
) -> None:
    calls: Counter[str] = Counter()

    @cache(lock=lock)
    async def itself(x: int) -> str:
        calls["itself"] += 1
        return "end" if calls["itself"] > 3 else str(await start(itself(x)))

    @cache(lock=lock)
    async def one(x: int) -> str:
        calls["one"] += 1
        return "end" if calls["one"] > 3 else str(await start(other(x)))

    @cache(lock=lock)
    async def other(x: int) -> str:
        return str(await start(one(x)))

    async def main() -> list[str]:
        return [await asyncio.wait_for(function(1), 20) for function in (itself, one)]

    assert all("end" in result for result in asyncio.run(main()))
