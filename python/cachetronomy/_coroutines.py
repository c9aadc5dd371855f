"""The wrapper of a decorated coroutine function: a real `async def`, as fast as Python has."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import inspect
import math
import time
from typing import TYPE_CHECKING, Any, TypeVar

from cachetronomy._core import _LEASE_LIFE, MISS

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from cachetronomy._core import CachedFunction, _Flight, _Ticket

T = TypeVar("T")

# Seconds between two looks whether another process has computed, each twice the one before.
_SHORTEST_PAUSE = 0.001
_LONGEST_PAUSE = 0.05

# The tasks that compute: this one, and those that started it, which may wait for it.
_leaders: contextvars.ContextVar[tuple[int, ...]] = contextvars.ContextVar(
    "cachetronomy_leaders", default=()
)

# Whether a computation further up, in this task or in one that started it, has a lease.
_holds_lease = contextvars.ContextVar("cachetronomy_holds_lease", default=False)


def wrap(cached: CachedFunction[..., Any]) -> Callable[..., Any]:
    """Return the `async def` that is called for a function whose keys and results `cached` has."""
    function = cached.__wrapped__
    peek = cached._peek  # noqa: SLF001 - the two halves of one decorator
    look_up = cached._lookup  # noqa: SLF001

    @functools.wraps(function)
    async def wrapper(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - the caller's types
        value = peek(args, kwargs)
        if value is not MISS:
            return value
        task = _task()
        while True:
            # A read of the file takes microseconds, far less than a hop to another thread. The key
            # is made before the call: the function may change its arguments.
            value, ticket, flight = look_up(args, kwargs, task, _leaders.get())
            if value is not MISS:
                if ticket is not None:
                    _start(_refresh(cached, ticket, args, kwargs))
                return value
            if flight is None:
                # To wait would be to wait for itself: for its own lease, too. Or there is no task.
                return await _compute(cached, ticket, args, kwargs)
            if flight.leads:
                return await _lead(flight, _once(cached, ticket, args, kwargs))
            value = await _end_of(flight)
            if value is not MISS:
                return value

    # From 3.12 on what is no function is known by a mark.
    mark = getattr(inspect, "markcoroutinefunction", None)
    return wrapper if mark is None else mark(wrapper)


async def refresh(
    cached: CachedFunction[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:  # noqa: ANN401 - the caller's types
    """Call the function whatever is stored, store what it returns, and return it."""
    ticket = cached._ticket(args, kwargs)  # noqa: SLF001 - the two halves of one decorator
    return await _compute(cached, ticket, args, kwargs)


async def _refresh(
    cached: CachedFunction[..., Any],
    ticket: _Ticket,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> None:
    """Compute a result anew while callers get the old one."""
    try:
        if cached._needs_lease and not await _claim(cached, ticket):  # noqa: SLF001 - as above
            return
        is_alone, flight = cached._board(ticket, id(asyncio.current_task()))  # noqa: SLF001
        if is_alone:
            computing = _compute(cached, ticket, args, kwargs)
            await (computing if flight is None else _lead(flight, computing))
    except Exception as error:  # noqa: BLE001 - nobody waits for it: it is logged
        cached._fail_refresh(ticket, error)  # noqa: SLF001 - as above
    finally:
        ticket.forsake()


async def _claim(cached: CachedFunction[..., Any], ticket: _Ticket) -> bool:
    """Return whether the ticket has the lease now."""
    done, value = await off_the_loop(functools.partial(cached._claim, ticket))  # noqa: SLF001
    return done and value is MISS


# The event loop holds its tasks weakly.
_refreshes: set[asyncio.Task[None]] = set()


def _start(refreshing: Coroutine[Any, Any, None]) -> None:
    task = asyncio.get_running_loop().create_task(refreshing)
    _refreshes.add(task)
    task.add_done_callback(_refreshes.discard)


async def _once(
    cached: CachedFunction[..., Any],
    ticket: _Ticket | None,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:  # noqa: ANN401 - the caller's types
    """Compute; with `lock="process"` unless another process has done so by then."""
    if ticket is None or not cached._needs_lease:  # noqa: SLF001 - as above
        return await _compute(cached, ticket, args, kwargs)
    pause = _SHORTEST_PAUSE
    # Whoever holds a lease may wait for one whose holder waits for theirs.
    limit = time.monotonic() + _LEASE_LIFE if _holds_lease.get() else math.inf
    try:
        while True:
            done, value = await off_the_loop(functools.partial(cached._claim, ticket))  # noqa: SLF001
            if value is not MISS:
                return value
            if done:
                return await _under_lease(_compute(cached, ticket, args, kwargs))
            if time.monotonic() >= limit:
                return await _compute(cached, ticket, args, kwargs)
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
    finally:
        ticket.forsake()  # If it was cancelled; otherwise the lease is given back by now.


async def _under_lease(computing: Coroutine[Any, Any, T]) -> T:
    before = _holds_lease.set(True)
    try:
        return await computing
    finally:
        with contextlib.suppress(ValueError):  # Thrown away, and ended in another context.
            _holds_lease.reset(before)


async def _compute(
    cached: CachedFunction[..., Any],
    ticket: _Ticket | None,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:  # noqa: ANN401 - the caller's types
    start = time.perf_counter_ns()
    try:
        value = await cached.__wrapped__(*args, **kwargs)
    except Exception as error:
        if ticket is None:
            raise
        value, left = cached._settle_failure(ticket, error, _since(start))  # noqa: SLF001 - as above
        if left is not None:
            await off_the_loop(left)
        if value is MISS:
            raise
        return value
    if ticket is not None:
        left = cached._settle(ticket, value, _since(start))  # noqa: SLF001 - as above
        if left is not None:
            await off_the_loop(left)
    return value


def _since(start: int) -> int:
    return (time.perf_counter_ns() - start) // 1_000


def _task() -> int | None:
    """Return a number of the running task; `None` where there is none, as under trio."""
    try:
        task = asyncio.current_task()
    except RuntimeError:
        return None
    return None if task is None else id(task)


async def _lead(flight: _Flight, computing: Coroutine[Any, Any, Any]) -> Any:  # noqa: ANN401
    """Compute for all who wait: they get the result, its exception or, if cancelled, the lead."""
    before = _leaders.set((*_leaders.get(), id(asyncio.current_task())))
    try:
        value = await computing
    except BaseException as error:
        flight.fail(error)
        raise
    finally:
        with contextlib.suppress(ValueError):  # Thrown away, and ended in another context.
            _leaders.reset(before)
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


async def off_the_loop(work: Callable[[], T]) -> T:
    """Run what may wait for the disk or a lock where no event loop waits for it."""
    try:
        pending = asyncio.get_running_loop().run_in_executor(None, work)
    except RuntimeError:
        # Another kind of loop (trio), whose threads nothing here knows, or an interpreter that is
        # about to exit and starts no more of them: it has to wait.
        return work()
    return await pending
