"""The sync client: the native class, and the methods that return pydantic models."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cachetronomy import _core

if TYPE_CHECKING:
    from cachetronomy.models import AccessLogEntry, ExpiredEntry


class Cachetronaut(_core.Cachetronaut):
    """A cache in two tiers: live objects in memory over a SQLite file.

    As a decorator, `@cache` or `@cache(ttl=..., time_to_live=..., tags=..., version=...,
    prefer=..., key_builder=...)`, it caches the results of a function or coroutine function. The
    parameters are those of `set`; `key_builder(function, args, kwargs) -> str` makes the key in
    place of the default, which is made of module, qualified name and arguments. The decorated
    function has `key_for(*args, **kwargs)` and `cache`.

    Args:
        db_path: the file; made, with missing folders, where it is missing. `"~"` is expanded.
            `":memory:"` is a private store that dies with the client. Default
            `"cachetronomy.db"` in the current folder.
        max_items_in_memory: entries kept as live objects, default 100; the store keeps them all.
            0 keeps none in memory, `None` sets no limit.
        busy_timeout: seconds to wait for a lock that another process holds, default 5.

    Raises:
        InvalidSettingError: an argument is out of range, or `db_path` is a folder.
        StoreUnavailableError: the file cannot be opened or written.
        CorruptStoreError: the file is not a cache; it is left as it is.

    Example:
        >>> with Cachetronaut(db_path=":memory:") as cache:
        ...     cache.set("answer", 42, time_to_live=60)
        ...     cache.get("answer")
        42
    """

    __slots__ = ()

    def clear_expired(self) -> list[ExpiredEntry]:
        """Remove every entry whose time to live has ended, from both tiers; return them."""
        from cachetronomy.models import ExpiredEntry  # noqa: PLC0415 - pydantic is loaded late

        return [
            ExpiredEntry.model_validate({"key": key, "expire_at": expire_at})
            for key, expire_at in self._clear_expired()
            if expire_at is not None
        ]

    def store_stats(self, limit: int | None = None) -> list[AccessLogEntry]:
        """Return the access counts of all processes ever, hottest first."""
        from cachetronomy.models import AccessLogEntry  # noqa: PLC0415 - pydantic is loaded late

        return [
            AccessLogEntry.model_validate(
                {
                    "key": key,
                    "access_count": count,
                    "last_accessed": last_accessed,
                    "last_accessed_by_profile": profile,
                }
            )
            for key, count, last_accessed, profile in self._store_stats(limit)
        ]
