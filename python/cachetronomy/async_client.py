"""The async client: the methods of the sync one, awaited, on an event loop that never waits."""

from __future__ import annotations

import functools
import weakref
from typing import TYPE_CHECKING, Any, TypeVar, overload

from cachetronomy import _core, _coroutines
from cachetronomy._awaited import Served, apart, awaited, made
from cachetronomy._computation import Computation
from cachetronomy._core import _LATER, MISS
from cachetronomy.abstract import Cachetronomer
from cachetronomy.async_lock import AsyncLock
from cachetronomy.client import Cachetronaut, changes_of, prepare

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable
    from datetime import timedelta
    from os import PathLike
    from types import EllipsisType, UnionType
    from typing import Literal, ParamSpec, TypeAlias, _SpecialForm

    from typing_extensions import Self

    from cachetronomy._core import CachedFunction
    from cachetronomy.async_store import AsyncSQLiteStore
    from cachetronomy.profiles import Profile

    _P = ParamSpec("_P")
    _F = TypeVar("_F")
    _TimeToLive: TypeAlias = float | timedelta | str
    _Lock: TypeAlias = Literal["thread", "process"] | None

_T = TypeVar("_T")
_G = TypeVar("_G", bound="Callable[..., Any]")
_D = TypeVar("_D")


def _at_once(get: _G) -> _G:
    """Have memory asked before anything else."""
    fast: Any = _core._Get(get)  # noqa: SLF001 - two halves
    fast._dress()  # noqa: SLF001 - as above
    asked_at_once: _G = fast
    return asked_at_once


class Disabled:
    """What `AsyncCachetronaut.disabled` returns: the client is disabled while it is entered."""

    __slots__ = ("_disabled",)

    def __init__(self, _client: Served, disabled: _core.Disabled) -> None:
        """Take over what the core made."""
        self._disabled = disabled

    def __enter__(self) -> None:
        """Disable the client."""
        self._disabled.__enter__()

    def __exit__(self, *exception: object) -> None:
        """Enable it again."""
        self._disabled.__exit__(*exception)

    async def __aenter__(self) -> None:
        """Disable the client."""
        self._disabled.__enter__()

    async def __aexit__(self, *exception: object) -> None:
        """Enable it again."""
        self._disabled.__exit__(*exception)


class AsyncCachetronaut(Served):
    """A cache in two tiers for asyncio: live objects in memory over a SQLite file.

    Every method is the one of `Cachetronaut`, with the same parameters, results and errors,
    awaited. A hit in memory and a short read of the file are answered at once; whatever may wait
    for a lock or the disk is done by threads of the client's own, and never by the event loop's.
    What is written at the same time shares a transaction.

    It may be used from several event loops, one after the other or each in a thread of its own. As
    a decorator it is like the sync one: a coroutine function never waits on its loop's thread; a
    plain function stays a plain function, and may.

    Args:
        db_path: the file, as for `Cachetronaut`. It is opened by `init_async`, `async with` or the
            first awaited call.
        profile: a `Profile`, or the name of one, as for `Cachetronaut`.
        max_items_in_memory: entries kept as live objects, as for `Cachetronaut`.
        busy_timeout: seconds to wait for a lock that another process holds, default 5.
        offload_reads: whether the event loop leaves short reads of the file to other threads, too.
            That is slower, but for a slow disk. Default false.
        loop: ignored; programs written for the original package give it.

    Raises:
        InvalidSettingError: an argument or a variable is out of range. What is wrong with the file
            is raised by what opens it.

    Example:
        >>> import asyncio
        >>> async def main():
        ...     async with AsyncCachetronaut(db_path=":memory:") as cache:
        ...         await cache.set("answer", 42, time_to_live=60)
        ...         return await cache.get("answer")
        >>> asyncio.run(main())
        42
    """

    _client: Cachetronaut
    _target: Cachetronaut
    # To be switched to before anything else is done.
    _next_profile: tuple[Profile | str | None] | None

    def __init__(  # noqa: PLR0913 - as in the sync client
        self,
        db_path: str | PathLike[str] | None = None,
        *,
        profile: Profile | str | None = None,
        max_items_in_memory: int | EllipsisType | None = ...,
        busy_timeout: float | None = None,
        offload_reads: bool | None = None,
        loop: object = None,  # noqa: ARG002
        _clock: _core.ManualClock | None = None,
        _gauge: _core.ManualGauge | None = None,
    ) -> None:
        """Prepare the client; the class says how."""
        client = Cachetronaut.__new__(Cachetronaut)
        prepare(
            client,
            db_path,
            profile,
            max_items_in_memory=max_items_in_memory,
            busy_timeout=busy_timeout,
            offload_reads=offload_reads,
            clock=_clock,
            gauge=_gauge,
            owner=weakref.ref(self),
        )
        self._client = self._target = client
        self._get_at_once = client._get_at_once  # noqa: SLF001 - the two halves of one client
        self._is_ready = False
        self._next_profile = None

    async def init_async(self) -> None:
        """Open the cache, if it is not open yet.

        Raises:
            StoreUnavailableError: the file cannot be opened or written.
            CorruptStoreError: the file is not a cache; it is left as it is.
            CacheClosedError: the client was closed.
        """
        if not self._is_ready:
            await self._get_ready()
        self._client._open()  # noqa: SLF001 - only says whether it is closed

    async def _get_ready(self) -> None:
        await super()._get_ready()
        switch = self._next_profile
        if switch is not None:
            self._is_ready = False
            await self._client._send(  # noqa: SLF001 - two halves
                functools.partial(self._client.set_profile, *switch),
                True,  # noqa: FBT003
            )
            if self._next_profile is switch:
                self._next_profile = None
            self._is_ready = self._next_profile is None

    async def shutdown(self) -> None:
        """Do what was begun, write what is pending and close the cache.

        Calling it again does nothing. It stays closed: any other call raises `CacheClosedError`
        from then on, and so does a decorated call that was still computing, with the result as the
        error's `value`.
        """
        await self._close()

    async def close(self) -> None:
        """Another name of `shutdown`."""
        await self.shutdown()

    async def __aenter__(self) -> Self:
        """Open the cache."""
        await self.init_async()
        return self

    async def __aexit__(self, *_exception: object) -> None:
        """Close it."""
        await self.shutdown()

    if not TYPE_CHECKING:  # Checkers say so themselves.

        def __enter__(self) -> None:
            """Refuse what the sync client does."""
            message = "AsyncCachetronaut is entered with `async with`"
            raise TypeError(message)

        def __exit__(self, *_exception: object) -> None:
            """Never called."""

        def __contains__(self, key: object) -> None:
            """Refuse what the sync client does."""
            message = "ask `await cache.contains(key)`; `in` cannot be awaited"
            raise TypeError(message)

    def __repr__(self) -> str:
        """Show the file, and whether it is closed."""
        return f"<Async{repr(self._client)[1:]}"

    @property
    def db_path(self) -> str:
        """The absolute path of the file, or `":memory:"`."""
        return self._client.db_path

    @property
    def is_closed(self) -> bool:
        """Whether the cache was closed."""
        return self._client.is_closed

    @property
    def store(self) -> AsyncSQLiteStore:
        """The persistent tier on its own; its methods are awaited too."""
        # It holds the client: a reference back would be a cycle, and close it late.
        known = getattr(self, "_store_object", None)
        store: AsyncSQLiteStore | None = known() if known is not None else None
        if store is None:
            from cachetronomy.async_store import AsyncSQLiteStore  # noqa: PLC0415 - it is large

            store = AsyncSQLiteStore._of(self)  # noqa: SLF001 - two faces of one thing
            self._store_object = weakref.ref(store)
        return store

    # One entry.

    @overload
    async def get(
        self,
        key: str,
        model: None = None,
        promote: bool = True,  # noqa: FBT001, FBT002
        default: object = None,
        version: int | None = None,
    ) -> Any: ...  # noqa: ANN401
    @overload
    async def get(
        self,
        key: str,
        model: type[_T],
        promote: bool = True,  # noqa: FBT001, FBT002
        default: None = None,
        version: int | None = None,
    ) -> _T | None: ...
    @overload
    async def get(
        self,
        key: str,
        model: type[_T],
        promote: bool,  # noqa: FBT001
        default: _D,
        version: int | None = None,
    ) -> _T | _D: ...
    @overload
    async def get(
        self,
        key: str,
        model: type[_T],
        promote: bool = True,  # noqa: FBT001, FBT002
        *,
        default: _D,
        version: int | None = None,
    ) -> _T | _D: ...
    @overload
    async def get(
        self,
        key: str,
        model: UnionType | _SpecialForm,
        promote: bool = True,  # noqa: FBT001, FBT002
        default: object = None,
        version: int | None = None,
    ) -> Any: ...  # noqa: ANN401
    @_at_once
    async def get(
        self,
        key: str,
        model: Any = None,
        promote: bool = True,  # noqa: FBT001, FBT002 - as in the sync client
        default: object = None,
        version: int | None = None,
    ) -> Any:
        """Return the value of a key, or `default` on a miss; as `Cachetronaut.get`."""
        if not self._is_ready:
            await self._get_ready()
        value = self._get_at_once(key, model, promote, version)
        if value is _LATER:
            value = await self._client._load(key, promote, version)  # noqa: SLF001 - two halves
        if value is MISS:
            return default
        if model is None:
            return value
        from cachetronomy._rebuild import validate  # noqa: PLC0415 - pydantic is loaded late

        return validate(value, model)

    set = awaited(Cachetronaut.set)
    delete = awaited(Cachetronaut.delete)
    add = awaited(Cachetronaut.add)
    incr = awaited(Cachetronaut.incr)
    decr = awaited(Cachetronaut.decr)
    pop = awaited(Cachetronaut.pop)
    touch = awaited(Cachetronaut.touch)
    ttl = apart(Cachetronaut.ttl, writes=False)
    expire_at = apart(Cachetronaut.expire_at, writes=False)
    key_metadata = apart(Cachetronaut.key_metadata, writes=False)
    evict = apart(Cachetronaut.evict, writes=True)

    async def contains(self, key: str) -> bool:
        """Return whether a live entry is there, as `key in cache` does with the sync client."""
        look = functools.partial(self._client.__contains__, key)
        return await self._call_apart(look, writes=False)

    # Many entries.

    get_many = awaited(Cachetronaut.get_many)
    set_many = awaited(Cachetronaut.set_many)
    delete_many = awaited(Cachetronaut.delete_many)
    delete_match = apart(Cachetronaut.delete_match, writes=True)
    keys = apart(Cachetronaut.keys, writes=False)
    store_keys = apart(Cachetronaut.store_keys, writes=False)
    memory_keys = apart(Cachetronaut.memory_keys, writes=False)
    all_keys = apart(Cachetronaut.all_keys, writes=False)
    items = apart(Cachetronaut.items, writes=False)
    store_metadata = apart(Cachetronaut.store_metadata, writes=False)
    evict_all = apart(Cachetronaut.evict_all, writes=True)
    clear_all = apart(Cachetronaut.clear_all, writes=True)
    clear_expired = apart(Cachetronaut.clear_expired, writes=True)
    clear_by_tags = invalidate_tags = apart(Cachetronaut.clear_by_tags, writes=True)

    async def clear_by_profile(
        self, profile_name: str | None = None, *, profile: str | None = None
    ) -> list[str]:
        """Remove the entries that were written under a profile; return their keys.

        `profile` is what the original package calls it.
        """
        if (profile_name is None) == (profile is None):
            message = "clear_by_profile() takes the name of a profile, once"
            raise TypeError(message)
        name = profile_name if profile is None else profile
        clear = functools.partial(self._client.clear_by_profile, name)  # type: ignore[arg-type]
        return await self._call_apart(clear, writes=True)

    async def count(self) -> int:
        """Return the number of live entries, as `len(cache)` does with the sync client."""
        return await self._call_apart(self._client.__len__, writes=False)

    # Profiles.

    @property
    def profile(self) -> Profile:
        """The active profile as it is in effect here; the cache has to be open.

        A profile or a name may be assigned: the next call switches to it first.
        """
        return self._client.profile

    @profile.setter
    def profile(self, profile: Profile | str | None) -> None:
        name, _ = changes_of(profile, whole=True)
        if name is not None:
            _core._check_setting("name", name)  # noqa: SLF001 - refused at once
        self._next_profile = (profile,)
        self._is_ready = False

    set_profile = apart(Cachetronaut.set_profile, writes=True)
    get_profile = apart(Cachetronaut.get_profile, writes=False)
    list_profiles = apart(Cachetronaut.list_profiles, writes=False)
    delete_profile = apart(Cachetronaut.delete_profile, writes=True)
    update_active_profile = apart(Cachetronaut.update_active_profile, writes=True)

    @property
    def time_to_live(self) -> int:
        """The active profile's: seconds an entry lives that names no time to live."""
        return self._client.time_to_live

    @property
    def ttl_cleanup_interval(self) -> int:
        """The active profile's: seconds between two sweeps of expired entries; 0 for none."""
        return self._client.ttl_cleanup_interval

    @property
    def memory_based_eviction(self) -> bool:
        """The active profile's: whether entries leave memory when the machine runs out of it."""
        return self._client.memory_based_eviction

    @property
    def free_memory_target(self) -> float:
        """The active profile's: RAM to keep free, in megabytes, or a fraction up to 1."""
        return self._client.free_memory_target

    @property
    def memory_cleanup_interval(self) -> int:
        """The active profile's: seconds between two looks at the free memory."""
        return self._client.memory_cleanup_interval

    @property
    def max_items_in_memory(self) -> int | None:
        """Entries kept as live objects; `None` for no limit."""
        return self._client.max_items_in_memory

    @property
    def tags(self) -> list[str]:
        """The active profile's: tags of entries that are stored without any."""
        return self._client.tags

    # Logs and counts.

    memory_stats = apart(Cachetronaut.memory_stats, writes=False)
    store_stats = apart(Cachetronaut.store_stats, writes=False)
    get_hot_keys = apart(Cachetronaut.get_hot_keys, writes=False)
    access_logs = apart(Cachetronaut.access_logs, writes=False)
    key_access_logs = apart(Cachetronaut.key_access_logs, writes=False)
    delete_access_logs = apart(Cachetronaut.delete_access_logs, writes=True)
    clear_access_logs = apart(Cachetronaut.clear_access_logs, writes=True)
    eviction_logs = apart(Cachetronaut.eviction_logs, writes=False)
    clear_eviction_logs = apart(Cachetronaut.clear_eviction_logs, writes=True)
    stats = apart(Cachetronaut.stats, writes=False)
    health_check = apart(Cachetronaut.health_check, writes=False)

    # Looking after the file.

    flush = apart(Cachetronaut.flush, writes=True)
    vacuum = apart(Cachetronaut.vacuum, writes=True)
    backup = apart(Cachetronaut.backup, writes=False)
    check = apart(Cachetronaut.check, writes=True)

    # Blocks.

    lock = made(
        Cachetronaut.lock,
        AsyncLock,
        """Return a lock for an `async with` block; as `Cachetronaut.lock`.

        Of all tasks, threads and processes that use the file, one at a time is inside. `ttl`: the
        time after which it is free again though its holder did not leave the block. `timeout`:
        seconds to wait for it, or a `timedelta`; `None` is for ever, 0 tries once. It is not
        re-entrant. Entering raises `StoreBusyError` when the time is over.
        """,
    )
    disabled = made(
        Cachetronaut.disabled,
        Disabled,
        """Return a block, `with` or `async with`, in which this client finds and stores nothing.

        As `Cachetronaut.disabled`.
        """,
    )

    # Computing.

    @overload
    async def get_or_compute(
        self,
        key: str,
        compute_fn: Callable[[], Awaitable[_T]],
        time_to_live: _TimeToLive | None = None,
        tags: Iterable[str] | str | None = None,
        version: int = 1,
        prefer: str | None = None,
        *,
        ttl: _TimeToLive | None = None,
        lock: _Lock = "thread",
    ) -> _T: ...
    @overload
    async def get_or_compute(
        self,
        key: str,
        compute_fn: Callable[[], _T],
        time_to_live: _TimeToLive | None = None,
        tags: Iterable[str] | str | None = None,
        version: int = 1,
        prefer: str | None = None,
        *,
        ttl: _TimeToLive | None = None,
        lock: _Lock = "thread",
    ) -> _T: ...
    async def get_or_compute(  # noqa: PLR0913, PLR0917 - as in the sync client
        self,
        key: str,
        compute_fn: Callable[[], Any],
        time_to_live: _TimeToLive | None = None,
        tags: Iterable[str] | str | None = None,
        version: int = 1,
        prefer: str | None = None,
        *,
        ttl: _TimeToLive | None = None,
        lock: _Lock = "thread",
    ) -> Any:
        """Return the value of a key; where there is none, compute and store it.

        `compute_fn()` returns the value, or an awaitable of it. `lock="thread"`: of all tasks and
        threads of the process that miss at once, one computes and the others get its result or its
        exception. `lock="process"`: of all processes that use the file, too. `None`: each computes.
        The other parameters are those of `set`.

        Raises:
            TypeError: `compute_fn` is no function.
            CachetronomyError: as in `get` and `set`; a value that was computed and could not be
                stored is the error's `value`.
        """
        unchecked: object = compute_fn
        if not callable(unchecked):
            message = (
                f"compute_fn: {unchecked!r:.80} cannot be called; give a function that returns "
                "the value, or an awaitable of it"
            )
            raise TypeError(message)
        value = await self.get(key, default=MISS, version=version)
        if value is not MISS:
            return value
        if not self._is_ready:
            await self._get_ready()
        how = {"time_to_live": time_to_live, "prefer": prefer, "ttl": ttl}
        wanted = Computation(self, key, compute_fn, version=version, tags=tags, **how)
        task, leaders = _coroutines.standing()
        while value is MISS:
            flight = self._client._board(key, version, lock, task, leaders)  # noqa: SLF001 - two halves
            if flight is None:  # To wait would be to wait for itself: for its own lease, too.
                return await wanted.run(None)
            if flight.leads:
                once = wanted.run_once(flight, on_the_machine=lock == "process")
                return await _coroutines.lead(flight, once)
            value = await _coroutines.end_of(flight)
        return value

    get_or_set = get_or_compute

    async def _keep(self, watch: _core._Watch, key: str, value: object, **how: Any) -> None:  # noqa: ANN401 - as in `set`
        # A subclass may have its own idea of `set`.
        if type(self).set is AsyncCachetronaut.set:
            storing: Any = self._client._set_computed(watch, key, value, **how)  # type: ignore[func-returns-value]  # noqa: SLF001
            await storing
        else:
            await self.set(key, value, **how)

    @overload
    def __call__(self, function: Callable[_P, _F]) -> CachedFunction[_P, _F]: ...
    @overload
    def __call__(
        self,
        function: None = None,
        *,
        ttl: _TimeToLive | Callable[[Any], _TimeToLive | None] | None = None,
        time_to_live: _TimeToLive | Callable[[Any], _TimeToLive | None] | None = None,
        tags: Iterable[str] | str | Callable[..., Iterable[str] | str | None] | None = None,
        version: int | None = None,
        prefer: str | None = None,
        key_builder: Callable[[Callable[..., Any], tuple[Any, ...], dict[str, Any]], str]
        | None = None,
        ignore: Iterable[str] | str | None = None,
        jitter: float | None = None,
        condition: Callable[[Any], object] | None = None,
        cache_exceptions: type[Exception] | tuple[type[Exception], ...] | None = None,
        negative_ttl: _TimeToLive | None = None,
        stale_while_revalidate: _TimeToLive | None = None,
        stale_if_error: _TimeToLive | None = None,
        early: bool = False,
        lock: _Lock = "thread",
    ) -> Callable[[Callable[_P, _F]], CachedFunction[_P, _F]]: ...
    def __call__(self, function: Any = None, **options: Any) -> Any:
        """Cache a function's results: `@cache`, or `@cache(ttl=60, tags=["x"])`.

        Args:
            function: what is decorated, where no options are given.
            **options: `ttl` (seconds, a `timedelta`, `"1h"`, or a function of the result),
                `tags` (or a function of the arguments), `version`, `prefer`; for keys `ignore`
                (parameters to leave out) and `key_builder`; `condition` (of the result, whether to
                keep it), `cache_exceptions` with `negative_ttl`; `jitter` (a part of the ttl);
                `stale_while_revalidate`, `stale_if_error`, `early`; `lock` (who computes once
                together: `"thread"`, `"process"` or `None`).

        Returns:
            The function, with `invalidate`, `refresh`, `cache_clear`, `cache_info` and `key_for`.

        Raises:
            InvalidSettingError: an option is out of range.
            TypeError: what is decorated is no function.
        """
        return self._client(function, **options)


Cachetronomer.register(AsyncCachetronaut)
