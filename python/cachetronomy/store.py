"""`SQLiteStore`: the persistent tier on its own, with the methods of the original package."""

# ruff: noqa: SLF001 - the core keeps its private methods for these

from __future__ import annotations

import contextlib
import json
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from cachetronomy import _core
from cachetronomy.exceptions import InvalidKeyError, InvalidSettingError
from cachetronomy.models import (
    AccessLogEntry,
    CacheEntry,
    CacheMetadata,
    CustomQuery,
    EvictionLogEntry,
    ExpiredEntry,
    access_of,
    entry_of,
    eviction_of,
    expired_of,
    metadata_of,
)
from cachetronomy.profiles import Profile, from_core

if TYPE_CHECKING:
    from collections.abc import Iterable
    from os import PathLike

    from typing_extensions import Self

# What evicts by itself is the client; a store that is opened alone keeps what it has.
_NO_EVICTION = {"ttl_cleanup_interval": 0, "memory_based_eviction": False}
_TIMES = ("expire_at", "last_accessed", "evicted_at")


class SQLiteStore:
    """The database file: its entries as bytes, its logs, its profiles.

    `client.store` is that of a client, whose memory sees every write made here.

    Args:
        db_path: as for `Cachetronaut`.
        loop: ignored; programs written for the original package give it.

    Raises:
        InvalidSettingError, StoreUnavailableError, CorruptStoreError: as for `Cachetronaut`.
    """

    __slots__ = ("__weakref__", "_client")

    _client: _core.Cachetronaut

    def __init__(
        self,
        db_path: str | PathLike[str],
        loop: object = None,  # noqa: ARG002
    ) -> None:
        """Open a file."""
        self._prepare(db_path)
        self._client._open()

    def _prepare(self, db_path: str | PathLike[str], **settings: Any) -> None:  # noqa: ANN401 - as in the core
        self._client = _core.Cachetronaut()
        self._client._prepare(
            db_path, "default", {}, dict(_NO_EVICTION), max_items_in_memory=0, **settings
        )

    @classmethod
    def _of(cls, client: _core.Cachetronaut) -> Self:
        """Make the store of a client, which is open."""
        store = cls.__new__(cls)
        store._client = client
        return store

    @property
    def db_path(self) -> str:
        """The absolute path of the file, or `":memory:"`."""
        return self._client.db_path

    def close(self) -> None:
        """Write what is pending and close the file; a client's store closes the client."""
        self._client.close()

    def __enter__(self) -> Self:
        """Return the store."""
        self._client.__enter__()
        return self

    def __exit__(self, *_exception: object) -> None:
        """Close it."""
        self.close()

    # Entries.

    def set(self, entry: CacheEntry) -> CacheEntry:
        """Store an entry, whose `data` is bytes in the format that `fmt` names; return it.

        Text is taken for the bytes that it stands for, as the original does.

        Raises:
            InvalidSettingError: `data` is neither.
        """
        data = entry.data
        if isinstance(data, str):
            data = data.encode("latin-1" if entry.fmt == "msgpack" else "utf-8")
        if not isinstance(data, bytes):
            kind = type(data).__name__
            message = f"data: must be the bytes of the value, not {kind}; use set() of the client"
            raise InvalidSettingError(message)
        self._client._put_row(
            entry.key,
            data,
            entry.fmt,
            _in_utc(entry.expire_at),
            entry.tags,
            entry.version,
            entry.saved_by_profile,
        )
        return entry

    def get(self, key: str) -> CacheEntry | None:
        """Return a live entry with its bytes as `data`, or `None`."""
        row = self._client._row(key)
        return None if row is None else entry_of(row)

    def delete(self, key: str) -> bool:
        """Delete an entry; return whether it existed."""
        return self._client.delete(key)

    def keys(self) -> list[str]:
        """Return the keys of the live entries."""
        return self._client.store_keys()

    def count(self) -> int:
        """Return the number of live entries."""
        return len(self._client)

    def items(self, limit: int | None = None) -> list[CacheEntry]:
        """Return the live entries with their bytes as `data`."""
        return [entry_of(row) for row in self._client._rows(limit, with_data=True)]

    def metadata(self) -> list[CacheMetadata]:
        """Return the live entries without their data."""
        return [metadata_of(row) for row in self._client._rows(None, with_data=False)]

    def key_metadata(self, key: str) -> CacheMetadata | None:
        """Return a live entry without its data, or `None`."""
        row = self._client._row(key)
        return None if row is None else metadata_of(row)

    def clear_all(self) -> None:
        """Delete all entries."""
        self._client.clear_all()

    def clear_expired(self) -> list[ExpiredEntry]:
        """Delete every entry whose time to live has ended; return them."""
        return [expired_of(row) for row in self._client._clear_expired()]

    def get_keys_by_tags(self, tags: Iterable[str] | str, exact_match: bool = False) -> list[str]:  # noqa: FBT001, FBT002 - as in the original
        """Return the keys that have any of the tags or, if `exact_match`, exactly these."""
        return self._client._keys_by_tags(tags, exact_match)

    def clear_by_tags(self, tags: Iterable[str] | str, exact_match: bool = False) -> list[str]:  # noqa: FBT001, FBT002 - as above
        """Delete entries that have any of the tags or, if `exact_match`, exactly these.

        Returns:
            Their keys.
        """
        return self._client.clear_by_tags(tags, exact_match)

    def clear_by_profile(self, profile_name: str) -> list[str]:
        """Delete what was stored while a profile was active; return the keys."""
        return self._client.clear_by_profile(profile_name)

    # Profiles.

    def profile(self, name: str) -> Profile | None:
        """Return a stored profile, or `None`."""
        fields = self._client._stored_profile(name)
        return None if fields is None else from_core(fields)

    def list_profiles(self) -> list[Profile]:
        """Return all stored profiles, by name."""
        return [from_core(fields) for fields in self._client._stored_profiles()]

    def update_profile_settings(  # noqa: PLR0913, PLR0917 - as in the original
        self,
        name: str,
        time_to_live: int | None = None,
        tags: Iterable[str] | None = None,
        ttl_cleanup_interval: int | None = None,
        memory_based_eviction: bool | None = None,  # noqa: FBT001 - as in the original
        free_memory_target: float | None = None,
        memory_cleanup_interval: int | None = None,
        max_items_in_memory: int | None = None,
    ) -> None:
        """Store the fields that are given under a name; clients that use it are not told.

        Raises:
            InvalidSettingError: a field is out of range; nothing was changed.
        """
        fields = {
            "time_to_live": time_to_live,
            "tags": tags,
            "ttl_cleanup_interval": ttl_cleanup_interval,
            "memory_based_eviction": memory_based_eviction,
            "free_memory_target": free_memory_target,
            "memory_cleanup_interval": memory_cleanup_interval,
            "max_items_in_memory": max_items_in_memory,
        }
        given = {field: value for field, value in fields.items() if value is not None}
        self._client._save_profile(name, given)

    def delete_profile(self, name: str) -> bool:
        """Delete a stored profile; return whether it existed."""
        return self._client._delete_profile(name)

    # The log of accesses. What is pending is written before it is read.

    def log_access(self, entry: AccessLogEntry, batch: bool = True) -> None:  # noqa: ARG002, FBT001, FBT002 - as in the original
        """Count one more access of a key. It is in the file at once, with or without `batch`."""
        at = _in_utc(entry.last_accessed)
        self._client._log_access(entry.key, at, entry.last_accessed_by_profile)

    def log_access_batch(self, entries: Iterable[AccessLogEntry]) -> None:
        """Count one more access for each entry."""
        for entry in entries:
            self.log_access(entry)

    def stats(self, limit: int | None = 10) -> list[AccessLogEntry]:
        """Return the access counts of all processes ever, hottest first."""
        return [access_of(row) for row in self._client._access_rows(limit)]

    def access_logs(self, limit: int | None = None) -> list[AccessLogEntry]:
        """Return the access counts of all processes ever, hottest first."""
        return self.stats(limit)

    get_all_access_logs = access_logs

    def key_access_logs(self, key: str) -> AccessLogEntry:
        """Return the access count of a key; an unknown one has count 0 and profile `(n/a)`."""
        row = self._client._access_row(key)
        if row is not None:
            return access_of(row)
        return AccessLogEntry(
            key=key,
            access_count=0,
            last_accessed=datetime.now(timezone.utc),
            last_accessed_by_profile="(n/a)",
        )

    def delete_access_logs(self, key: str) -> None:
        """Forget the access count of a key."""
        unchecked: object = key
        if unchecked is None:  # The core would take that for all of them.
            message = "a key must be a str, not NoneType: None; clear_access_logs forgets all"
            raise InvalidKeyError(message)
        self._client._delete_access(key)

    def clear_access_logs(self) -> None:
        """Forget all access counts."""
        self._client._delete_access(None)

    # The log of evictions, likewise.

    def log_eviction(self, entry: EvictionLogEntry, batch: bool = True) -> None:  # noqa: ARG002, FBT001, FBT002 - as in the original
        """Log an eviction. It is in the file at once, with or without `batch`."""
        self._client._log_eviction(
            entry.key,
            _in_utc(entry.evicted_at),
            entry.reason,
            entry.last_access_count,
            entry.evicted_by_profile,
        )

    def log_eviction_batch(self, entries: Iterable[EvictionLogEntry]) -> None:
        """Log evictions."""
        for entry in entries:
            self.log_eviction(entry)

    def eviction_logs(self, limit: int | None = 1000) -> list[EvictionLogEntry]:
        """Return what left a tier, when and why, newest first."""
        return [eviction_of(row) for row in self._client._eviction_rows(limit)]

    def eviction_count(self) -> int:
        """Return the number of lines in the log of evictions."""
        return self._client._eviction_count()

    def clear_eviction_logs(self) -> None:
        """Empty the log of evictions."""
        self._client._clear_evictions()

    # The database itself.

    def set_config(self, key: str, value: str, db_path: str | None = None) -> None:
        """Set a value of the command line, with the file it is about; default this one."""
        self._client._query(
            "INSERT OR REPLACE INTO cli_config (key, value, db_path) VALUES (?, ?, ?)",
            [key, value, db_path or self.db_path],
            autocommit=True,
        )

    def get_config(self, key: str) -> tuple[str, str]:
        """Return a value of the command line and its file; `("default", db_path)` if not set."""
        query = CustomQuery(
            query="SELECT value, db_path FROM cli_config WHERE key = ?", params=[key]
        )
        rows = self._rows(query)
        if isinstance(rows, list) and rows:
            return rows[0]["value"], rows[0]["db_path"]
        return "default", self.db_path

    def custom_query(self, custom_query: CustomQuery) -> list[Any] | int:
        """Run one statement of SQL, on your own responsibility.

        Returns:
            Of a statement that has rows, a list of dicts by column, or of what `schema_type`
            makes of them. A column named `tags` comes as a list, and those named `expire_at`,
            `last_accessed` and `evicted_at` as `datetime`, where they hold such. Of any other,
            the number of rows that it changed.
        """
        unchecked: object = custom_query
        if not isinstance(unchecked, CustomQuery):
            message = f"custom_query: {unchecked!r:.80} is no query; give a CustomQuery(query=...)"
            raise InvalidSettingError(message)
        schema = custom_query.schema_type
        rows = self._rows(custom_query)
        if isinstance(rows, int) or schema is None:
            return rows
        return [schema(**row) for row in rows]

    def _rows(self, custom_query: CustomQuery) -> list[dict[str, Any]] | int:
        parameters = [
            _in_utc(value) if isinstance(value, datetime) else value
            for value in custom_query.params or ()
        ]
        found = self._client._query(custom_query.query, parameters, custom_query.autocommit)
        if isinstance(found, int):
            return found
        columns, rows = found
        return [
            {column: _converted(column, value) for column, value in zip(columns, row, strict=True)}
            for row in rows
        ]


def _converted(column: str, value: object) -> object:
    """What the original's rows hold in columns of these names, as far as the text allows."""
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            if column == "tags":
                return json.loads(value)
            if column in _TIMES:
                return datetime.fromisoformat(value)
    return value


def _in_utc(moment: datetime) -> str:
    """A time as the tables hold it. One without a zone is in UTC already: the tables know none."""
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=timezone.utc)
    return moment.astimezone(timezone.utc).isoformat(timespec="microseconds")
