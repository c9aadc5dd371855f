"""The wrapper of a decorated coroutine function: a real `async def`, as fast as Python has."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from typing import TYPE_CHECKING, Any

from cachetronomy._core import MISS

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from cachetronomy._core import CachedFunction, _Flight


def wrap(cached: CachedFunction[..., Any]) -> Callable[..., Any]:  # noqa: C901 - three in one
    """Return the `async def` in whose place `cached` keeps keys and results."""
    function = cached.__wrapped__
    peek = cached._peek  # noqa: SLF001 - the two halves of one decorator
    look_up = cached._lookup  # noqa: SLF001
    store = cached._store  # noqa: SLF001

    async def compute(args: Any, kwargs: Any, key: str | None) -> Any:  # noqa: ANN401 - as below
        start = time.perf_counter_ns()
        value = await function(*args, **kwargs)
        if key is not None:
            compute_us = (time.perf_counter_ns() - start) // 1_000
            await _off_the_loop(functools.partial(store, key, value, compute_us))
        return value

    async def compute_once(args: Any, kwargs: Any) -> Any:  # noqa: ANN401 - as below
        task = _task()
        while True:
            # A read of the file takes microseconds, far less than a hop to another thread. The key
            # is made before the call: the function may change its arguments.
            value, key, flight = look_up(args, kwargs, task)
            if value is not MISS:
                return value
            if flight is None:
                return await compute(args, kwargs, key)
            if flight.leads:
                return await _lead(flight, compute(args, kwargs, key))
            value = await _end_of(flight)
            if value is not MISS:
                return value

    @functools.wraps(function)
    async def wrapper(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - the caller's types
        value = peek(args, kwargs)
        return await compute_once(args, kwargs) if value is MISS else value

    for name in ("key_for", "cache"):
        setattr(wrapper, name, getattr(cached, name))
    return wrapper


def _task() -> int | None:
    """Return a number of the running task; `None` where there is none, as under trio."""
    try:
        task = asyncio.current_task()
    except RuntimeError:
        return None
    return None if task is None else id(task)


async def _lead(flight: _Flight, computing: Coroutine[Any, Any, Any]) -> Any:  # noqa: ANN401
    """Compute for all who wait: they get the result, its exception or, if cancelled, the lead."""
    try:
        value = await computing
    except BaseException as error:
        flight.fail(error)
        raise
    flight.end(value)
    return value


async def _end_of(flight: _Flight) -> Any:  # noqa: ANN401 - the caller's value
    """Wait until somebody else has computed; the result, or `MISS` if they went away."""
    loop = asyncio.get_running_loop()
    ended = loop.create_future()

    def wake() -> None:
        if not ended.done():
            ended.set_result(None)

    def tell() -> None:  # On the thread of the leader.
        with contextlib.suppress(RuntimeError):  # The loop is closed: nobody waits any more.
            loop.call_soon_threadsafe(wake)

    try:
        if flight.when_ended(tell):
            await ended
        return flight.result()
    finally:
        flight.leave()


async def _off_the_loop(commit: Callable[[], None]) -> None:
    """Run a commit, which may wait for the disk or a lock, where no event loop waits for it."""
    try:
        pending = asyncio.get_running_loop().run_in_executor(None, commit)
    except RuntimeError:
        # Another kind of loop (trio), whose threads nothing here knows, or an interpreter that is
        # about to exit and starts no more of them: it has to wait.
        commit()
        return
    await pending
