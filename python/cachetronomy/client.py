"""The sync client: the native class, and the methods that are cold or return pydantic models."""

from __future__ import annotations

import weakref
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

from cachetronomy import _core, environment
from cachetronomy.exceptions import CachetronomyError, InvalidSettingError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import timedelta
    from os import PathLike
    from types import EllipsisType
    from typing import Literal, TypeAlias

    from cachetronomy.models import (
        AccessLogEntry,
        CacheEntry,
        CacheMetadata,
        EvictionLogEntry,
        ExpiredEntry,
    )
    from cachetronomy.profiles import Profile
    from cachetronomy.store import SQLiteStore

    _Lock: TypeAlias = Literal["thread", "process"] | None

_T = TypeVar("_T")


class Cachetronaut(_core.Cachetronaut):
    """A cache in two tiers: live objects in memory over a SQLite file.

    As a decorator, `@cache` or `@cache(ttl=..., ...)`, it caches the results of a function or
    coroutine function under a key of module, qualified name and arguments. Its options are those
    of `set` - `ttl` (or `time_to_live`) may be a function of the result, `tags` one of the
    arguments - and `ignore=("self", ...)`, parameters left out of the key; `key_builder(function,
    args, kwargs) -> str`, which makes the key itself; `jitter`, the part, below 1, by which each
    time to live may vary; `condition(result)`, whether to store it; `cache_exceptions=(...)`,
    classes of exceptions to keep for `negative_ttl`, 60 seconds by default. The decorated function
    has `key_for`, `invalidate`, `refresh` (which take its arguments), `cache_info()`,
    `cache_clear()` and `cache`.

    What is not given comes from `CACHE_*` variables, then from the `.env` of the current folder,
    then from the profile that is stored under the name, then from the defaults. Where a `Profile`
    object is given, the fields that it was built with beat them all, and are stored.

    Args:
        db_path: the file; made, with missing folders, where it is missing. `"~"` is expanded.
            `":memory:"` is a private store that dies with the client. Default
            `"cachetronomy.db"` in the current folder.
        profile: a `Profile`, or the name of one; one that is not stored is made with the
            defaults. Default `"default"`.
        max_items_in_memory: entries kept as live objects; the store keeps them all. 0 keeps none
            in memory, `None` sets no limit. Default: the profile's, which is 100 at first.
        busy_timeout: seconds to wait for a lock that another process holds, default 5.
        loop: ignored; programs written for the original package give it.

    Raises:
        InvalidSettingError: an argument or a variable is out of range, or `db_path` is a folder.
        StoreUnavailableError: the file cannot be opened or written.
        CorruptStoreError: the file is not a cache; it is left as it is.

    Example:
        >>> with Cachetronaut(db_path=":memory:") as cache:
        ...     cache.set("answer", 42, time_to_live=60)
        ...     cache.get("answer")
        42
    """

    _store_object: weakref.ref[SQLiteStore]

    def __init__(
        self,
        db_path: str | PathLike[str] | None = None,
        *,
        profile: Profile | str | None = None,
        max_items_in_memory: int | EllipsisType | None = ...,
        busy_timeout: float | None = None,
        loop: object = None,  # noqa: ARG002
        _clock: _core.ManualClock | None = None,
        _gauge: _core.ManualGauge | None = None,
    ) -> None:
        """Open the cache; the class says how."""
        prepare(
            self,
            db_path,
            profile,
            max_items_in_memory=max_items_in_memory,
            busy_timeout=busy_timeout,
            clock=_clock,
            gauge=_gauge,
        )
        self._open()

    @property
    def store(self) -> SQLiteStore:
        """The persistent tier on its own, with the original package's methods."""
        # The store holds the client: a reference back would be a cycle, and close it late.
        known = getattr(self, "_store_object", None)
        store = known() if known is not None else None
        if store is None:
            from cachetronomy.store import SQLiteStore  # noqa: PLC0415 - pydantic is loaded late

            store = SQLiteStore._of(self)  # noqa: SLF001 - two faces of one thing
            self._store_object = weakref.ref(store)
        return store

    # Profiles.

    @property
    def profile(self) -> Profile:
        """The active profile as it is in effect here. A profile or a name may be assigned."""
        return self._as_profile(self._profile())

    @profile.setter
    def profile(self, profile: Profile | str | None) -> None:
        self.set_profile(profile)

    def set_profile(self, profile: Profile | str | None) -> Profile:
        """Make another profile active, at once, and return it.

        A name that is not stored yet is stored with the defaults; all fields of a `Profile`
        object are stored under its name. `None` is the profile `"default"`.

        Raises:
            InvalidSettingError: it is no profile, or its name is empty.
        """
        name, fields = changes_of(profile, whole=True)
        if name is None and profile is not None:
            return self._as_profile(self._update_profile(None, fields))
        return self._as_profile(self._use_profile("default" if name is None else name, fields))

    def update_active_profile(
        self,
        /,
        profile: Profile | None = None,
        **changes: Any,  # noqa: ANN401 - each field has a type of its own
    ) -> Profile:
        """Change fields of the active profile, here and in the store, and return it.

        Of a `Profile` object only those fields count that it was built with. With another name
        the stored profile with these changes is stored under that name too, which becomes the
        active one.

        Raises:
            InvalidSettingError: a field is unknown or out of range; nothing was changed.
        """
        name, fields = changes_of(profile, whole=False)
        fields |= changes
        name = fields.pop("name", name)
        return self._as_profile(self._update_profile(name, fields))

    def _as_profile(self, fields: dict[str, Any]) -> Profile:
        from cachetronomy.profiles import from_core  # noqa: PLC0415 - pydantic is loaded late

        return from_core(fields, self._overrides())

    def get_profile(self, name: str | None = None) -> Profile | None:
        """Return the stored profile of a name, or `None`; without a name the active one."""
        return self.profile if name is None else self.store.profile(name)

    def list_profiles(self) -> list[Profile]:
        """Return all stored profiles, by name."""
        return self.store.list_profiles()

    def delete_profile(self, name: str) -> bool:
        """Delete a stored profile; return whether it existed. The active one stays in effect."""
        return self._delete_profile(name)

    @property
    def time_to_live(self) -> int:
        """The active profile's: seconds an entry lives that names no time to live."""
        return int(self._profile()["time_to_live"])

    @property
    def ttl_cleanup_interval(self) -> int:
        """The active profile's: seconds between two sweeps of expired entries; 0 for none."""
        return int(self._profile()["ttl_cleanup_interval"])

    @property
    def memory_based_eviction(self) -> bool:
        """The active profile's: whether entries leave memory when the machine runs out of it."""
        return bool(self._profile()["memory_based_eviction"])

    @property
    def free_memory_target(self) -> float:
        """The active profile's: RAM to keep free, in megabytes, or a fraction up to 1."""
        return float(self._profile()["free_memory_target"])

    @property
    def memory_cleanup_interval(self) -> int:
        """The active profile's: seconds between two looks at the free memory."""
        return int(self._profile()["memory_cleanup_interval"])

    @property
    def max_items_in_memory(self) -> int | None:
        """Entries kept as live objects; `None` for no limit."""
        limit: int | None = self._profile()["max_items_in_memory"]
        return limit

    @property
    def tags(self) -> list[str]:
        """The active profile's: tags of entries that are stored without any."""
        return list(self._profile()["tags"])

    # Entries.

    def items(self, limit: int | None = None) -> list[CacheEntry]:
        """Return the live entries of the store with their values as `data`."""
        from cachetronomy.models import entry_of  # noqa: PLC0415 - pydantic is loaded late

        return [entry_of(row) for row in self._items(limit)]

    def key_metadata(self, key: str) -> CacheMetadata | None:
        """Return all that is known of a live entry but its value, or `None`."""
        return self.store.key_metadata(key)

    def store_metadata(self) -> list[CacheMetadata]:
        """Return all that is known of the live entries but their values."""
        return self.store.metadata()

    def clear_expired(self) -> list[ExpiredEntry]:
        """Remove every entry whose time to live has ended, from both tiers; return them."""
        return self.store.clear_expired()

    invalidate_tags = _core.Cachetronaut.clear_by_tags

    def get_or_compute(  # noqa: PLR0913, PLR0917 - as in the original
        self,
        key: str,
        compute_fn: Callable[[], _T],
        time_to_live: float | timedelta | str | None = None,
        tags: Iterable[str] | str | None = None,
        version: int = 1,
        prefer: str | None = None,
        *,
        ttl: float | timedelta | str | None = None,
        lock: _Lock = "thread",
    ) -> _T:
        """Return the value of a key; where there is none, call `compute_fn()` and store what it
        returns.

        `lock="thread"`: of all threads and tasks of the process that miss at once, one computes and
        the others get its result or its exception. `lock="process"`: of all processes that use the
        file, too; there an exception makes the next one compute. `None`: each computes. The other
        parameters are those of `set`; a value of another version is computed anew.

        Raises:
            TypeError: `compute_fn` is asynchronous, which this client cannot wait for.
            CachetronomyError: as in `get` and `set`; a value that was computed and could not be
                stored is the error's `value`.
        """  # noqa: D205
        import inspect  # noqa: PLC0415 - it is large, and importing the package shall be cheap

        if inspect.iscoroutinefunction(compute_fn):
            raise TypeError(_asynchronous(compute_fn))

        if tags is not None and hasattr(tags, "__next__"):  # Asked more than once.
            tags = list(tags)

        def compute(flight: _core._Flight | None) -> _T:
            watch = self._watch(key, tags)
            if flight is not None:
                watch.outdates(flight)
            value = compute_fn()
            if isinstance(value, Coroutine):
                value.close()
                raise TypeError(_asynchronous(compute_fn))
            self._keep(watch, key, value, time_to_live, version, tags, prefer, ttl=ttl)
            return value

        value: _T = self.get(key, default=_core.MISS, version=version)
        while value is _core.MISS:
            flight = self._board(key, version, lock)
            if flight is None:  # To wait would be to wait for itself: for its own lease, too.
                return compute(None)
            if flight.leads:
                return self._lead(flight, key, version, lock, compute)
            value = flight.wait()
        return value

    def _lead(
        self,
        flight: _core._Flight,
        key: str,
        version: int,
        lock: _Lock,
        compute: Callable[[_core._Flight], _T],
    ) -> _T:
        try:
            # Somebody may have stored it between the look and this.
            value: _T = self.get(key, default=_core.MISS, version=version, promote=False)
            if value is _core.MISS:
                value = self._compute_once(key, version, lock, lambda: compute(flight))
        except BaseException as error:
            flight.fail(error)
            raise
        flight.end(value)
        return value

    def _compute_once(self, key: str, version: int, lock: _Lock, compute: Callable[[], _T]) -> _T:
        if lock != "process":
            return compute()

        def look() -> Any:  # noqa: ANN401 - the caller's value
            return self.get(key, default=_core.MISS, version=version, promote=False)

        value: _T
        value, lease = self._claim(key, look)
        if value is not _core.MISS:
            return value
        try:
            return compute()
        finally:
            if lease is not None:
                lease.end()

    def _keep(
        self,
        watch: _core._Watch,
        key: str,
        value: object,
        *how: Any,  # noqa: ANN401 - as in `set`
        ttl: Any,  # noqa: ANN401 - as in `set`
    ) -> None:
        try:
            # A subclass may have its own idea of `set`.
            if type(self).set is _core.Cachetronaut.set:
                self._set_computed(watch, key, value, *(*how, ttl))
            else:
                self.set(key, value, *how, ttl=ttl)
        except CachetronomyError as error:
            error.value = value
            raise

    get_or_set = get_or_compute

    # Logs.

    def store_stats(self, limit: int | None = None) -> list[AccessLogEntry]:
        """Return the access counts of all processes ever, hottest first."""
        return self.store.stats(limit)

    def access_logs(self, limit: int | None = None) -> list[AccessLogEntry]:
        """Return the access counts of all processes ever, hottest first."""
        return self.store.access_logs(limit)

    def key_access_logs(self, key: str) -> AccessLogEntry:
        """Return the access count of a key; an unknown one has count 0 and profile `(n/a)`."""
        return self.store.key_access_logs(key)

    def delete_access_logs(self, key: str) -> None:
        """Forget the access count of a key."""
        self.store.delete_access_logs(key)

    def clear_access_logs(self) -> None:
        """Forget all access counts."""
        self._delete_access(None)

    def eviction_logs(self, limit: int | None = 1000) -> list[EvictionLogEntry]:
        """Return what left a tier, when and why, newest first."""
        return self.store.eviction_logs(limit)

    def clear_eviction_logs(self) -> None:
        """Empty the log of evictions."""
        self._clear_evictions()

    def health_check(self) -> dict[str, Any]:
        """Look whether the store answers and memory suffices.

        Returns:
            A dict of `status` (`"healthy"`; `"degraded"`: less memory is free than the profile
            wants; `"unhealthy"`: the store does not answer), `db_accessible`, `memory_ok`,
            `store_keys_count` and `memory_keys_count`.

        Raises:
            CacheClosedError: the client is closed.
        """
        store_keys, memory_keys, memory_ok = self._health()
        accessible = store_keys is not None
        status = "healthy" if memory_ok else "degraded"
        return {
            "status": status if accessible else "unhealthy",
            "db_accessible": accessible,
            "memory_ok": memory_ok,
            "store_keys_count": store_keys or 0,
            "memory_keys_count": memory_keys,
        }


def prepare(
    client: _core.Cachetronaut,
    db_path: str | PathLike[str] | None,
    profile: Profile | str | None,
    **given: Any,  # noqa: ANN401 - each setting has a type of its own
) -> None:
    """Tell a client how it is to be opened: what is not given comes from the environment.

    Raises:
        InvalidSettingError: an argument or a variable is out of range; it is named.
    """
    settings = environment.read()
    name, fields = changes_of(profile, whole=False)
    if db_path is not None:
        settings.pop("db_path", None)
    for field in ("busy_timeout", "offload_reads"):
        of_environment = settings.pop(field, None)
        if given.get(field) is None and of_environment is not None:
            given[field] = of_environment
    offload_reads = given.get("offload_reads")
    if not isinstance(offload_reads, bool | None):
        message = f"offload_reads: {offload_reads!r:.80} is neither True nor False"
        raise InvalidSettingError(message)
    path, default, serializer = (
        settings.pop(field, None) for field in ("db_path", "default_profile", "serializer")
    )
    try:
        client._prepare(  # noqa: SLF001 - two halves of one class
            path if db_path is None else db_path,
            name if name is not None else default or "default",
            fields,
            settings,
            serializer=serializer,
            **given,
        )
    except InvalidSettingError as error:
        field, _, reason = str(error).partition(": ")
        field = {"prefer": "serializer"}.get(field, field)  # As it is called elsewhere.
        if {"db_path": path, "serializer": serializer}.get(field) is None:
            raise
        message = f"{environment.PREFIX}{field.upper()}: {reason}"
        raise InvalidSettingError(message) from None


def changes_of(profile: Profile | str | None, *, whole: bool) -> tuple[str | None, dict[str, Any]]:
    """Return the name of a profile and its fields: all of them, or those that it was built with.

    Raises:
        InvalidSettingError: it is neither a profile nor a name.
    """
    if profile is None or isinstance(profile, str):
        return profile, {}
    from cachetronomy import profiles  # noqa: PLC0415 - pydantic is loaded late

    return profiles.changes_of(profile, whole=whole)


def _asynchronous(function: Callable[[], Any]) -> str:
    return (
        f"{function!r} is a coroutine function, which this client cannot wait for; use an async "
        "client, or decorate it with @cache"
    )
