"""The wrapper of a decorated coroutine function: a real `async def`, as fast as Python has."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import inspect
import math
import sys
import time
from typing import TYPE_CHECKING, Any, TypeVar

from cachetronomy._core import _LEASE_LIFE, MISS
from cachetronomy.exceptions import CachetronomyError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from cachetronomy._core import CachedFunction, _Flight, _Lease, _Ticket

L = TypeVar("L", bound="_Lease | _Ticket")
T = TypeVar("T")

# Seconds between two looks whether another process has computed, each twice the one before.
_SHORTEST_PAUSE = 0.001
_LONGEST_PAUSE = 0.05

# Seconds between two looks whether whoever computes can still do so.
_LOOK = 0.5

# The tasks that compute: this one, and those that started it, which may wait for it.
_leaders: contextvars.ContextVar[tuple[int, ...]] = contextvars.ContextVar(
    "cachetronomy_leaders", default=()
)

# Whether a computation further up, in this task or in one that started it, has a lease.
_holds_lease = contextvars.ContextVar("cachetronomy_holds_lease", default=False)


def wrap(cached: CachedFunction[..., Any]) -> Callable[..., Any]:
    """Return what is called for a coroutine function whose keys and results `cached` has.

    Of a call by positional arguments memory was asked already.
    """
    function = cached.__wrapped__

    @functools.wraps(function)
    async def wrapper(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - the caller's types
        return await _answer(cached, args, kwargs)

    # From 3.12 on what is no function is known by a mark.
    mark = getattr(inspect, "markcoroutinefunction", None)
    return wrapper if mark is None else mark(wrapper)


async def _answer(
    cached: CachedFunction[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:  # noqa: ANN401 - the caller's types
    """Return the result of a call that memory does not answer at once."""
    task = _task()
    await _get_ready(cached)
    while True:
        # A read of the file takes microseconds, far less than a hop to another thread. The key is
        # made before the call: the function may change its arguments.
        value, ticket, flight, key = cached._lookup(args, kwargs, task, _leaders.get())  # noqa: SLF001
        if value is not MISS:
            if ticket is not None:
                _start(ticket, _refresh(cached, ticket, args, kwargs))
            return value
        if flight is not None and not flight.leads:
            value = await end_of(flight)
            if value is not MISS:
                return value
            continue
        going = _go_on(cached, ticket, key, args, kwargs, flight)
        # Without a flight, to wait would be to wait for itself: for its own lease, too. Or there
        # is no task.
        return await (going if flight is None else lead(flight, going))


async def _get_ready(cached: CachedFunction[..., Any]) -> None:
    """Have an async client opened, and switched to the profile that was assigned to it."""
    client: Any = cached.cache
    if not getattr(client, "_is_ready", True) and _task() is not None:
        await client._get_ready()  # noqa: SLF001 - the client and what it decorates


async def _go_on(  # noqa: PLR0913, PLR0917 - what `_lookup` returns, and what it was asked
    cached: CachedFunction[..., Any],
    ticket: _Ticket | None,
    key: str | None,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    flight: _Flight | None,
) -> Any:  # noqa: ANN401 - the caller's types
    if key is not None:
        fetched = await cached._fetch(key)  # noqa: SLF001 - as above
        value, ticket = cached._set_out(key, fetched, args, kwargs, flight)  # noqa: SLF001
        if value is not MISS:
            if ticket is not None:
                _start(ticket, _refresh(cached, ticket, args, kwargs))
            return value
    compute = _compute if flight is None else _once
    return await compute(cached, ticket, args, kwargs)


async def refresh(
    cached: CachedFunction[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:  # noqa: ANN401 - the caller's types
    """Call the function whatever is stored, store what it returns, and return it."""
    await _get_ready(cached)
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
        needs_lease = cached._needs_lease  # noqa: SLF001 - as above
        if needs_lease and not await _claim(cached, ticket):
            return
        is_alone, flight = cached._board(ticket, id(asyncio.current_task()))  # noqa: SLF001
        if is_alone:
            computing = _compute(cached, ticket, args, kwargs)
            if needs_lease:
                computing = _under_lease(ticket, lambda: _end_lease(cached, ticket), computing)
            await (computing if flight is None else lead(flight, computing))
    except Exception as error:  # noqa: BLE001 - nobody waits for it: it is logged
        cached._fail_refresh(ticket, error)  # noqa: SLF001 - as above
    finally:
        ticket.forsake()


async def _claim(cached: CachedFunction[..., Any], ticket: _Ticket) -> bool:
    """Return whether the ticket has the lease now."""
    done, value = await _try_claim(cached, ticket)
    return done and value is MISS


async def _try_claim(cached: CachedFunction[..., Any], ticket: _Ticket) -> tuple[bool, Any]:
    ticket.bind()
    claim = functools.partial(cached._claim, ticket)  # noqa: SLF001 - as above
    return await off_the_loop(cached, claim, writes=True)


# The event loop holds its tasks weakly.
_refreshes: set[asyncio.Task[None]] = set()


def _start(ticket: _Ticket, refreshing: Coroutine[Any, Any, None]) -> None:
    task = asyncio.get_running_loop().create_task(refreshing)
    _refreshes.add(task)

    def end(task: asyncio.Task[None]) -> None:
        _refreshes.discard(task)
        ticket.forsake()  # It may have been cancelled before it began.

    task.add_done_callback(end)


async def _once(
    cached: CachedFunction[..., Any],
    ticket: _Ticket | None,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:  # noqa: ANN401 - the caller's types
    """Compute; with `lock="process"` unless another process has done so by then."""
    if ticket is None or not cached._needs_lease:  # noqa: SLF001 - as above
        return await _compute(cached, ticket, args, kwargs)

    async def claim() -> tuple[bool, Any, _Ticket]:
        return *await _try_claim(cached, ticket), ticket

    try:
        return await once_on_the_machine(
            claim,
            lambda ticket: _end_lease(cached, ticket),
            lambda: _compute(cached, ticket, args, kwargs),
        )
    finally:
        ticket.forsake()  # If it was cancelled; otherwise the lease is given back by now.


async def once_on_the_machine(
    claim: Callable[[], Awaitable[tuple[bool, Any, L | None]]],
    end: Callable[[L], Awaitable[None]],
    compute: Callable[[], Coroutine[Any, Any, T]],
) -> T:
    """Compute unless another process has done so by then.

    Args:
        claim: tries once to get the lease: whether there is something to go on with, the value or
            `MISS`, and what has the lease, if anything has.
        end: gives the lease back.
        compute: computes and stores the value.
    """
    pause = _SHORTEST_PAUSE
    # Whoever holds a lease may wait for one whose holder waits for theirs.
    limit = time.monotonic() + _LEASE_LIFE if _holds_lease.get() else math.inf
    while True:
        done, value, lease = await claim()
        if value is not MISS:
            found: T = value
            return found
        if done and lease is not None:
            lease.bind()
            return await _under_lease(lease, functools.partial(end, lease), compute())
        if done or time.monotonic() >= limit:
            return await compute()
        await asyncio.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)


async def _under_lease(
    lease: _Lease | _Ticket,
    end: Callable[[], Awaitable[None]],
    computing: Coroutine[Any, Any, T],
) -> T:
    before = _holds_lease.set(True)
    try:
        try:
            return await computing
        finally:
            # If it was cancelled or closed it must not wait; what fails ends by itself.
            if not isinstance(sys.exc_info()[1], (asyncio.CancelledError, GeneratorExit)):
                with contextlib.suppress(CachetronomyError):
                    await end()
    finally:
        # If it was cancelled, whose traceback may be kept for long; otherwise it is given back.
        lease.forsake()
        with contextlib.suppress(ValueError):  # Thrown away, and ended in another context.
            _holds_lease.reset(before)


async def _end_lease(cached: CachedFunction[..., Any], ticket: _Ticket) -> None:
    ending = cached._end_lease(ticket)  # noqa: SLF001 - as above
    if ending is not None:
        await ending


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
            await left
        if value is MISS:
            raise
        return value
    if ticket is not None:
        left = cached._settle(ticket, value, _since(start))  # noqa: SLF001 - as above
        if left is not None:
            await left
    return value


def _since(start: int) -> int:
    return (time.perf_counter_ns() - start) // 1_000


def standing() -> tuple[int | None, tuple[int, ...]]:
    """Return a number of the running task, and those of the tasks that compute and started it."""
    return _task(), _leaders.get()


def _task() -> int | None:
    """Return a number of the running task; `None` where there is none, as under trio."""
    try:
        task = asyncio.current_task()
    except RuntimeError:
        return None
    return None if task is None else id(task)


async def lead(flight: _Flight, computing: Coroutine[Any, Any, Any]) -> Any:  # noqa: ANN401
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


async def end_of(flight: _Flight) -> Any:  # noqa: ANN401 - the caller's value
    """Wait until somebody else has computed; the result, or `MISS` if they went away."""
    loop = asyncio.get_running_loop()
    ended = loop.create_future()

    def wake() -> None:
        if not ended.done():
            ended.set_result(None)

    def tell() -> None:  # On the thread of the leader.
        with contextlib.suppress(RuntimeError):  # The loop is closed: nobody waits any more.
            loop.call_soon_threadsafe(wake)

    timers: list[asyncio.TimerHandle] = []

    def look() -> None:
        # The leader's loop may have been closed under it.
        flight.look()
        timers[:] = [loop.call_later(_LOOK, look)]

    timers.append(loop.call_later(_LOOK, look))
    try:
        if flight.when_ended(tell):
            await ended
        return flight.result()
    finally:
        timers[0].cancel()
        flight.leave()


async def off_the_loop(
    cached: CachedFunction[..., Any],
    work: Callable[[], T],
    writes: bool,  # noqa: FBT001 - the core calls it
) -> T:
    """Run what may wait for the disk or a lock where no event loop waits for it.

    Another kind of loop (trio) has to wait: of its threads nothing here knows.
    """
    await _get_ready(cached)
    pending = cached._send(work, writes)  # noqa: SLF001 - as above
    return work() if pending is None else await pending
