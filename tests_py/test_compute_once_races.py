"""Many threads and tasks on one missing key, round after round: one computation each.

`make soak` runs it for many rounds.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections import Counter
from collections.abc import Callable

import pytest
from cachetronomy import Cachetronaut

ROUNDS = int(os.environ.get("CACHETRONOMY_ONCE_ROUNDS", "10"))
THREADS = 64
TASKS = 64

pytestmark = pytest.mark.timeout(600)


def race(anywhere: Cachetronaut, *, once: bool) -> tuple[Counter[int], list[BaseException]]:
    """Let all of them ask for one key a round; how often each was computed, and what was raised."""
    calls: Counter[int] = Counter()
    errors: list[BaseException] = []
    start = threading.Barrier(THREADS + 1, timeout=60)
    nap = threading.Event()

    def compute(number: int) -> int:
        calls[number] += 1
        nap.wait(0.002)
        return number

    async def compute_in_a_task(number: int) -> int:
        calls[number] += 1
        await asyncio.sleep(0.002)
        return number

    def key(_: object, args: tuple[int, ...], __: object) -> str:
        return str(args[0])

    def uncached(function: Callable[..., object]) -> Callable[..., object]:
        def ask(number: int) -> object:
            value = anywhere.get(str(number))
            return function(number) if value is None else value

        return ask

    plain = anywhere(key_builder=key)(compute) if once else uncached(compute)
    task = anywhere(key_builder=key)(compute_in_a_task) if once else uncached(compute_in_a_task)

    def thread() -> None:
        for number in range(ROUNDS):
            start.wait()
            if plain(number) != number:
                errors.append(AssertionError(number))

    def loop() -> None:
        async def tasks(number: int) -> None:
            results = await asyncio.gather(*(task(number) for _ in range(TASKS)))
            if set(results) != {number}:
                errors.append(AssertionError(number))

        for number in range(ROUNDS):
            start.wait()
            asyncio.run(tasks(number))

    def guarded(work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:
            errors.append(error)
            start.abort()

    workers = [threading.Thread(target=guarded, args=[thread]) for _ in range(THREADS)]
    workers.append(threading.Thread(target=guarded, args=[loop]))
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return calls, errors


def test_one_computes_in_each_round(anywhere: Cachetronaut) -> None:
    calls, errors = race(anywhere, once=True)
    assert errors == []
    assert calls == Counter(range(ROUNDS))


def test_without_compute_once_many_do(anywhere: Cachetronaut) -> None:
    calls, errors = race(anywhere, once=False)
    assert errors == []
    assert max(calls.values()) > 1


def test_threads_that_use_a_closure_first_at_once_have_one_key(
    anywhere: Cachetronaut, monkeypatch: pytest.MonkeyPatch
) -> None:
    random, calls, together = os.urandom, [], threading.Barrier(8)

    def urandom(size: int) -> bytes:
        # Where threads change: what stands for a list in the key comes from here.
        time.sleep(0.02)
        return random(size)

    monkeypatch.setattr("os.urandom", urandom)

    @anywhere
    def slow() -> None:
        calls.append(1)
        time.sleep(0.3)

    def work() -> None:
        together.wait()
        slow()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert calls == [1]
