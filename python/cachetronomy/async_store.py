"""`AsyncSQLiteStore`: the persistent tier on its own, its methods awaited."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

from cachetronomy._awaited import Served, apart
from cachetronomy.store import SQLiteStore

if TYPE_CHECKING:
    from os import PathLike

    from typing_extensions import Self


class AsyncSQLiteStore(Served):
    """The database file: its entries as bytes, its logs, its profiles.

    `client.store` is that of an async client, whose memory sees every write made here. Each method
    is the one of `SQLiteStore`, awaited.

    Args:
        db_path: as for `AsyncCachetronaut`.
        loop: ignored; programs written for the original package give it.

    Raises:
        InvalidSettingError: `db_path` is no path.
    """

    def __init__(
        self,
        db_path: str | PathLike[str],
        loop: object = None,  # noqa: ARG002
    ) -> None:
        """Prepare; `init`, or the first awaited call, opens the file."""
        store = SQLiteStore.__new__(SQLiteStore)
        store._prepare(db_path, owner=weakref.ref(self))  # noqa: SLF001 - two faces of one thing
        self._take_over(store, None)

    def _take_over(self, store: SQLiteStore, owner: Served | None) -> None:
        self._target = store
        self._client = store._client  # noqa: SLF001 - as above
        self._owner = owner
        self._is_ready = False

    @classmethod
    def _of(cls, owner: Served) -> Self:
        """Make the store of a client."""
        store = cls.__new__(cls)
        store._take_over(SQLiteStore._of(owner._client), owner)  # noqa: SLF001 - as above
        return store

    async def _get_ready(self) -> None:
        if self._owner is None:
            await super()._get_ready()
        elif not self._owner._is_ready:  # noqa: SLF001 - as above
            await self._owner._get_ready()  # noqa: SLF001 - as above

    @property
    def db_path(self) -> str:
        """The absolute path of the file, or `":memory:"`."""
        return self._client.db_path

    async def init(self) -> None:
        """Open the file, if it is not open yet.

        Raises:
            StoreUnavailableError, CorruptStoreError: as for `AsyncCachetronaut`.
        """
        await self._get_ready()
        self._client._open()  # noqa: SLF001 - only says whether it is closed

    async def close(self) -> None:
        """Write what is pending and close the file; a client's store closes the client."""
        await self._close()

    async def __aenter__(self) -> Self:
        """Open the file; return the store."""
        await self.init()
        return self

    async def __aexit__(self, *_exception: object) -> None:
        """Close it."""
        await self.close()

    # Entries.

    set = apart(SQLiteStore.set, writes=True)
    get = apart(SQLiteStore.get, writes=False)
    delete = apart(SQLiteStore.delete, writes=True)
    keys = apart(SQLiteStore.keys, writes=False)
    count = apart(SQLiteStore.count, writes=False)
    items = apart(SQLiteStore.items, writes=False)
    metadata = apart(SQLiteStore.metadata, writes=False)
    key_metadata = apart(SQLiteStore.key_metadata, writes=False)
    clear_all = apart(SQLiteStore.clear_all, writes=True)
    clear_expired = apart(SQLiteStore.clear_expired, writes=True)
    get_keys_by_tags = apart(SQLiteStore.get_keys_by_tags, writes=False)
    clear_by_tags = apart(SQLiteStore.clear_by_tags, writes=True)
    clear_by_profile = apart(SQLiteStore.clear_by_profile, writes=True)

    # Profiles.

    profile = apart(SQLiteStore.profile, writes=False)
    list_profiles = apart(SQLiteStore.list_profiles, writes=False)
    update_profile_settings = apart(SQLiteStore.update_profile_settings, writes=True)
    delete_profile = apart(SQLiteStore.delete_profile, writes=True)

    # The logs. What is pending is written before they are read.

    log_access = apart(SQLiteStore.log_access, writes=True)
    log_access_batch = apart(SQLiteStore.log_access_batch, writes=True)
    stats = apart(SQLiteStore.stats, writes=False)
    access_logs = apart(SQLiteStore.access_logs, writes=False)
    get_all_access_logs = access_logs
    key_access_logs = apart(SQLiteStore.key_access_logs, writes=False)
    delete_access_logs = apart(SQLiteStore.delete_access_logs, writes=True)
    clear_access_logs = apart(SQLiteStore.clear_access_logs, writes=True)
    log_eviction = apart(SQLiteStore.log_eviction, writes=True)
    log_eviction_batch = apart(SQLiteStore.log_eviction_batch, writes=True)
    eviction_logs = apart(SQLiteStore.eviction_logs, writes=False)
    eviction_count = apart(SQLiteStore.eviction_count, writes=False)
    clear_eviction_logs = apart(SQLiteStore.clear_eviction_logs, writes=True)

    # The database itself.

    set_config = apart(SQLiteStore.set_config, writes=True)
    get_config = apart(SQLiteStore.get_config, writes=False)
    custom_query = apart(SQLiteStore.custom_query, writes=True)
