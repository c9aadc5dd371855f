"""What a task of a closed event loop had begun holds up nobody, in no process."""

from __future__ import annotations

import asyncio
import warnings
from typing import TYPE_CHECKING, Any

import pytest
from cachetronomy import AsyncCachetronaut, Cachetronaut

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from conftest import Child

GENEROUS = 15  # seconds until whoever waits is taken for stuck

OTHER = """
import asyncio, json, sys
from cachetronomy import AsyncCachetronaut
sys.stdin.readline()
async def main():
    async with AsyncCachetronaut(sys.argv[1]) as cache:
        async def function():
            return await cache.get_or_compute("key", lambda: "other", lock="process")
        return await asyncio.wait_for(function(), float(sys.argv[2]))
print(json.dumps(asyncio.run(main())), flush=True)
"""


def decorated(cache: Any, work: Callable[[], Any]) -> Callable[[], Any]:
    @cache(lock="process", key_builder=lambda *_: "key")
    async def function() -> Any:
        return await work()

    return function  # type: ignore[no-any-return]


def direct(cache: Any, work: Callable[[], Any]) -> Callable[[], Any]:
    return lambda: cache.get_or_compute("key", work, lock="process")


WAYS = {
    "decorated": (AsyncCachetronaut, decorated),
    "decorated by the sync client": (Cachetronaut, decorated),
    "get_or_compute": (AsyncCachetronaut, direct),
}


@pytest.fixture(params=WAYS.values(), ids=WAYS)
def way(request: pytest.FixtureRequest) -> Any:
    """How a value is computed once on the machine."""
    return request.param


async def for_ever() -> None:
    await asyncio.Event().wait()


def leave(cache: Any, make: Any) -> asyncio.Task[Any]:
    """Begin a computation, and close the loop under it; the task, which the program keeps."""
    begun: asyncio.Future[None]

    async def work() -> None:
        begun.set_result(None)
        await for_ever()

    async def main() -> asyncio.Task[Any]:
        nonlocal begun
        begun = asyncio.get_running_loop().create_future()
        task = asyncio.ensure_future(make(cache, work)())
        await begun
        return task

    loop = asyncio.new_event_loop()
    task = loop.run_until_complete(main())
    loop.close()
    task._log_destroy_pending = False  # type: ignore[attr-defined]
    return task


def end(cache: Any) -> None:
    asyncio.run(cache.shutdown()) if isinstance(cache, AsyncCachetronaut) else cache.close()


@pytest.mark.parametrize("who", ["the same process", "another process"])
def test_its_lease_ends(db_path: Path, way: Any, who: str, child: Callable[..., Child]) -> None:
    kind, make = way
    cache = kind(db_path)
    task = leave(cache, make)

    async def work() -> str:
        return "same"

    async def ask() -> Any:
        return await asyncio.wait_for(make(cache, work)(), GENEROUS)

    if who == "the same process":
        assert asyncio.run(ask()) == "same"
    else:
        other = child(OTHER, db_path, GENEROUS)
        assert other.ask() == "other"
    assert not task.done()
    end(cache)


def test_a_computation_that_is_thrown_away_ends_without_a_word(db_path: Path, way: Any) -> None:
    kind, make = way
    cache = kind(db_path)

    async def main() -> None:
        await asyncio.sleep(0)
        computing = make(cache, for_ever)()

        async def begin() -> None:
            await computing

        task = asyncio.ensure_future(begin())
        await asyncio.sleep(0.2)
        assert not task.done()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        computing.close()

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        asyncio.run(main())
    end(cache)


def test_a_coroutine_that_is_closed_while_it_computes_raises_nothing(
    db_path: Path, way: Any
) -> None:
    kind, make = way
    cache = kind(db_path)

    async def main() -> None:
        begun = asyncio.Event()

        async def work() -> None:
            begun.set()
            await for_ever()

        computing = make(cache, work)()
        waits = computing.send(None)  # For the lease, or for the file to be opened.
        while not begun.is_set():
            waits._asyncio_future_blocking = False
            await waits
            waits = computing.send(None)
        computing.close()

    asyncio.run(main())
    end(cache)
