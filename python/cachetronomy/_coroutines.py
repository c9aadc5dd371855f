"""The wrapper of a decorated coroutine function: a real `async def`, as fast as Python has."""

from __future__ import annotations

import asyncio
import functools
import time
from typing import TYPE_CHECKING, Any

from cachetronomy._core import MISS

if TYPE_CHECKING:
    from collections.abc import Callable

    from cachetronomy._core import CachedFunction


def wrap(cached: CachedFunction[..., Any]) -> Callable[..., Any]:
    """Return the `async def` in whose place `cached` keeps keys and results."""
    function = cached.__wrapped__
    peek = cached._peek  # noqa: SLF001 - the two halves of one decorator
    look_up = cached._lookup  # noqa: SLF001
    store = cached._store  # noqa: SLF001

    @functools.wraps(function)
    async def wrapper(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - the caller's types
        value = peek(args, kwargs)
        if value is not MISS:
            return value
        # A read of the file takes microseconds, far less than a hop to another thread. The key is
        # made before the call: the function may change its arguments.
        value, key = look_up(args, kwargs)
        if value is not MISS:
            return value
        start = time.perf_counter_ns()
        value = await function(*args, **kwargs)
        if key is not None:
            compute_us = (time.perf_counter_ns() - start) // 1_000
            await _off_the_loop(functools.partial(store, key, value, compute_us))
        return value

    for name in ("key_for", "cache"):
        setattr(wrapper, name, getattr(cached, name))
    return wrapper


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
