"""An async client that is called like the sync one, so that one suite tests both."""

from __future__ import annotations

import asyncio
import inspect
import threading
from typing import Any

from cachetronomy.async_lock import AsyncLock
from typing_extensions import Self


class Awaited:
    """Has what an async object returns awaited by an event loop in another thread."""

    def __init__(self, served: Any, loop: asyncio.AbstractEventLoop) -> None:
        """Take over an async client or store."""
        self.__dict__.update(_served=served, _loop=loop, _stores={})

    def _run(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._served, name)
        if name == "store":
            return self._stores.setdefault(found, Awaited(found, self._loop))
        if name == "lock":
            return lambda *args, **kwargs: _AwaitedLock(found(*args, **kwargs), self)
        if inspect.iscoroutinefunction(found):

            def call(*args: Any, **kwargs: Any) -> Any:
                return self._run(found(*args, **kwargs))

            return call
        return found

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._served, name, value)
        if name == "profile":  # The next call would switch, and a test may only look.
            self._run(self._served.init_async())

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._served(*args, **kwargs)

    def __enter__(self) -> Self:
        self._run(self._served.__aenter__())
        return self

    def __exit__(self, *exception: object) -> None:
        self._run(self._served.__aexit__(*exception))

    def __len__(self) -> int:
        return int(self._run(self._served.count()))

    def __bool__(self) -> bool:
        return bool(self._served)

    def __contains__(self, key: str) -> bool:
        return bool(self._run(self._served.contains(key)))

    def __repr__(self) -> str:
        return repr(self._served)


_BLOCKS: set[asyncio.Task[None]] = set()


class _AwaitedLock:
    """Enters and leaves in one task, as an `async with` block does."""

    def __init__(self, lock: AsyncLock, client: Awaited) -> None:
        self.lock = lock
        self.client = client
        # By the thread that entered.
        self.blocks: dict[int, list[tuple[asyncio.Event, asyncio.Task[None]]]] = {}

    async def _enter(self, thread: int) -> None:
        leave, entered = asyncio.Event(), asyncio.get_running_loop().create_future()

        async def block() -> None:
            try:
                await self.lock.__aenter__()
            except BaseException as error:
                entered.set_exception(error)
                return
            entered.set_result(None)
            await leave.wait()
            await self.lock.__aexit__(None, None, None)

        task = asyncio.create_task(block())
        _BLOCKS.add(task)  # A test may drop a lock that it never leaves.
        task.add_done_callback(_BLOCKS.discard)
        await entered
        self.blocks.setdefault(thread, []).append((leave, task))

    async def _leave(self, thread: int) -> None:
        if not self.blocks.get(thread):
            await self.lock.__aexit__(None, None, None)
            return
        leave, task = self.blocks[thread].pop()
        leave.set()
        await task

    def __enter__(self) -> Self:
        self.client._run(self._enter(threading.get_ident()))
        return self

    def __exit__(self, *_exception: object) -> None:
        self.client._run(self._leave(threading.get_ident()))

    def __repr__(self) -> str:
        return repr(self.lock)
