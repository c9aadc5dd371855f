"""Calls that wait for a file that another process has locked wait together, not in turn."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from cachetronomy import AsyncCachetronaut, Cachetronaut, StoreBusyError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from conftest import Child

MANY = 12
SECONDS = 1  # of patience
LIMIT = 6  # seconds; in turn they would take `MANY`

Fail = Any  # Has `MANY` calls made at once, and returns what each raised.


def error_of(call: Callable[[], Any]) -> BaseException | None:
    try:
        call()
    except StoreBusyError as error:
        return error
    return None


CALLS: dict[str, Callable[[Any, int], Any]] = {
    "set": lambda cache, number: cache.set(f"key {number}", 1),
    "incr": lambda cache, number: cache.incr(f"counter {number}"),
    "delete": lambda cache, number: cache.delete(f"key {number}"),
    "set_many": lambda cache, number: cache.set_many({f"key {number}": 1}),
    "clear_by_tags": lambda cache, number: cache.clear_by_tags(f"tag {number}"),
}


@pytest.fixture(params=["threads", "tasks"])
def fail(
    request: pytest.FixtureRequest,
    db_path: Path,
    lock_holder: Child,
    event_loop_thread: asyncio.AbstractEventLoop,
) -> Iterator[Fail]:
    """Call the sync client from threads, or the async one from tasks, while the file is locked."""

    def awaited(coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, event_loop_thread).result()

    async def gather(cache: Any, call: Any) -> Any:
        calls = (call(cache, number) for number in range(MANY))
        return await asyncio.gather(*calls, return_exceptions=True)

    def in_threads(call: Any) -> Any:
        with ThreadPoolExecutor(MANY) as pool:
            return list(pool.map(lambda number: error_of(lambda: call(plain, number)), range(MANY)))

    plain = Cachetronaut(db_path, busy_timeout=SECONDS)
    cache = AsyncCachetronaut(db_path, busy_timeout=SECONDS)
    awaited(cache.init_async())
    plain.set_many({f"key {number}": 0 for number in range(MANY)})
    lock_holder.ask("BEGIN IMMEDIATE")
    tasks = request.param == "tasks"
    yield lambda call: awaited(gather(cache, call)) if tasks else in_threads(call)
    lock_holder.ask("COMMIT")
    awaited(cache.shutdown())
    plain.close()


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_calls_at_once_wait_together(fail: Fail, call: Callable[[Any, int], Any]) -> None:
    start = time.monotonic()
    errors = fail(call)
    assert SECONDS <= time.monotonic() - start < LIMIT
    assert {type(error) for error in errors} == {StoreBusyError}


@pytest.mark.parametrize("kind", [Cachetronaut, AsyncCachetronaut])
def test_a_lock_waits_for_the_file_no_longer_than_its_timeout(
    db_path: Path, lock_holder: Child, kind: Any, event_loop_thread: asyncio.AbstractEventLoop
) -> None:
    def awaited(coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, event_loop_thread).result()

    async def enter() -> None:
        async with cache.lock("name", timeout=0.2):
            pass

    cache = kind(db_path, busy_timeout=60)
    if kind is Cachetronaut:
        cache.set("key", 1)
        take, close = cache.lock("name", timeout=0.2).__enter__, cache.close
    else:
        awaited(cache.set("key", 1))
        take, close = (lambda: awaited(enter())), (lambda: awaited(cache.shutdown()))
    lock_holder.ask("BEGIN IMMEDIATE")
    start = time.monotonic()
    with pytest.raises(StoreBusyError, match="could not be had within 200ms"):
        take()
    assert time.monotonic() - start < LIMIT
    lock_holder.ask("COMMIT")
    close()
