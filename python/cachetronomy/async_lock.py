"""`AsyncLock`: what `AsyncCachetronaut.lock` returns."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from typing import TYPE_CHECKING

from cachetronomy.exceptions import CachetronomyError

if TYPE_CHECKING:
    from typing_extensions import Self

    from cachetronomy._awaited import Served
    from cachetronomy._core import Lock

# Seconds between two looks at a lock that another process has, each twice the one before. A task
# or thread of this process is heard of at once.
_SHORTEST_PAUSE = 0.001
_LONGEST_PAUSE = 0.05


class AsyncLock:
    """A lock for an `async with` block, between tasks, threads and processes.

    It excludes those who take the lock of this name by the sync client, too. It is not re-entrant;
    the object can be entered again, also by several tasks.
    """

    __slots__ = ("_client", "_held", "_lock")

    def __init__(self, client: Served, lock: Lock) -> None:
        """Prepare it; `AsyncCachetronaut.lock` does so."""
        self._client = client
        self._lock = lock
        # Who took it, and under which names.
        self._held: list[tuple[object, str]] = []

    async def __aenter__(self) -> Self:
        """Wait for the lock, and take it.

        Raises:
            StoreBusyError: it stayed taken for longer than `timeout`.
            StoreFullError, StoreUnavailableError, CacheClosedError: the store failed.
        """
        owner = self._lock._new_owner()  # noqa: SLF001 - the two halves of one lock
        if not await self._try(owner, self._lock._timeout):  # noqa: SLF001 - as above
            await self._wait(owner)
        self._held.append((asyncio.current_task(), owner))
        return self

    async def __aexit__(self, *_exception: object) -> None:
        """Give it back; if it was held for longer than its `ttl`, the log says so."""
        if not self._held:
            message = f"{self!r} is not held"
            raise CachetronomyError(message)
        # Another task may leave a block than the one that entered it: of a fixture, say.
        me = asyncio.current_task()
        own = (at for at, (task, _) in enumerate(self._held) if task is me)
        _, owner = self._held.pop(max(own, default=-1))
        give_back = functools.partial(self._lock._give_back, owner)  # noqa: SLF001 - two halves
        # Begun before anything can be cancelled.
        await self._client._client._send(give_back, True)  # noqa: FBT003, SLF001 - as above

    def __repr__(self) -> str:
        """Show the name."""
        return f"<Async{repr(self._lock)[1:]}"

    async def _try(self, owner: str, left: float | None) -> bool:
        take = functools.partial(self._lock._take, owner, left)  # noqa: SLF001 - two halves
        try:
            return await self._client._call_apart(take, writes=True)  # noqa: SLF001 - as above
        except asyncio.CancelledError:
            # It may be taken all the same, before this is done.
            forgo = functools.partial(self._lock._forgo, owner)  # noqa: SLF001 - two halves
            with contextlib.suppress(CachetronomyError):
                forgone = self._client._client._send(forgo, True)  # noqa: FBT003, SLF001 - as above
                # What fails is nobody's business: the lock ends by itself.
                asyncio.ensure_future(forgone).add_done_callback(_look_away)
            raise

    async def _wait(self, owner: str) -> None:
        timeout = self._lock._timeout  # noqa: SLF001 - two halves
        deadline = None if timeout is None else time.monotonic() + timeout
        loop = asyncio.get_running_loop()
        freed: asyncio.Future[None] | None = None
        is_woken = False

        def wake() -> None:
            nonlocal is_woken
            is_woken = True
            if freed is not None and not freed.done():
                freed.set_result(None)

        def tell() -> None:  # On the thread of whoever gives it back.
            with contextlib.suppress(RuntimeError):  # The loop is closed: nobody waits any more.
                loop.call_soon_threadsafe(wake)

        # Before the look that it waits for the end of: what is freed in between wakes it.
        place = self._lock._wait(tell)  # noqa: SLF001 - two halves
        has_won = False
        pause = _SHORTEST_PAUSE
        try:
            while True:
                is_woken = False
                left = None if deadline is None else deadline - time.monotonic()
                if await self._try(owner, left):
                    has_won = True
                    return
                if deadline is not None:
                    left = deadline - time.monotonic()
                    if left <= 0:
                        raise self._lock._busy()  # noqa: SLF001 - two halves
                    pause = min(pause, left)
                if not is_woken:
                    freed = loop.create_future()
                    timer = loop.call_later(pause, wake)
                    try:
                        await freed
                    finally:
                        timer.cancel()
                pause = min(2 * pause, _LONGEST_PAUSE)
        finally:
            place.leave(has_won)


def _look_away(future: asyncio.Future[None]) -> None:
    if not future.cancelled():
        future.exception()
