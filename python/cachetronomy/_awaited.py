"""How the async classes take their methods over from the sync ones, so that the two cannot drift.

A method that is awaited is the sync one, with its name, parameters, docstring and errors; only who
waits for the disk is another.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

from cachetronomy.exceptions import CacheClosedError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from cachetronomy import _core

_P = ParamSpec("_P")
_R = TypeVar("_R")
_T = TypeVar("_T")


class Served:
    """An async object, and the sync one that serves it.

    The sync one is called on threads of its own, which may wait, never on that of an event loop.
    """

    _client: _core.Cachetronaut
    _target: Any  # Whose methods are taken over: the client, or its store.
    _is_ready: bool

    async def _get_ready(self) -> None:
        await self._client._send(self._client._open, True)  # noqa: FBT003, SLF001 - two halves
        self._is_ready = True

    async def _close(self) -> None:
        if self._client._is_through:  # noqa: SLF001 - two halves
            return
        try:
            await self._client._send(self._client.close, True)  # noqa: FBT003, SLF001 - as above
        except CacheClosedError:  # Somebody else was faster, and may not be through.
            await asyncio.to_thread(self._client.close)

    async def _call_apart(self, call: Callable[[], _R], *, writes: bool) -> _R:
        """Call what may wait, and return what it returns."""
        if not self._is_ready:
            await self._get_ready()
        result: _R = await self._client._send(call, writes)  # noqa: SLF001 - two halves
        return result


def awaited(
    method: Callable[Concatenate[Any, _P], _R],
) -> Callable[Concatenate[Any, _P], Coroutine[Any, Any, _R]]:
    """Take over a method of the core, which for an async client returns an awaitable."""
    core: Callable[..., Any] = method

    async def call(self: Served, /, *args: _P.args, **kwargs: _P.kwargs) -> _R:
        if not self._is_ready:
            await self._get_ready()
        result: _R = await core(self._client, *args, **kwargs)
        return result

    return _dressed(call, method)


def apart(
    method: Callable[Concatenate[Any, _P], _R], *, writes: bool
) -> Callable[Concatenate[Any, _P], Coroutine[Any, Any, _R]]:
    """Take over a method that may wait.

    Args:
        method: the sync one.
        writes: whether it is done after what was written before it, or beside that.
    """

    async def call(self: Served, /, *args: _P.args, **kwargs: _P.kwargs) -> _R:
        work = functools.partial(method, self._target, *args, **kwargs)
        return await self._call_apart(work, writes=writes)

    return _dressed(call, method)


def made(
    method: Callable[Concatenate[Any, _P], _R], make: Callable[[Any, _R], _T], doc: str
) -> Callable[Concatenate[Any, _P], _T]:
    """Take over a method that returns a block at once, whose own methods are awaited.

    Args:
        method: the sync one.
        make: makes the block, of the async object and of what the sync one returns.
        doc: the docstring.
    """

    def call(self: Served, /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        return make(self, method(self._target, *args, **kwargs))

    dressed = _dressed(call, method)
    dressed.__doc__ = doc
    return dressed


def _dressed(call: Callable[..., Any], method: Callable[..., Any]) -> Callable[..., Any]:
    call.__name__ = method.__name__
    owner = method.__qualname__.rpartition(".")[0]
    call.__qualname__ = f"Async{owner}.{call.__name__}"
    call.__doc__ = method.__doc__
    call.__annotations__ = getattr(method, "__annotations__", {})
    call.__signature__ = inspect.signature(method)  # type: ignore[attr-defined]
    return call
