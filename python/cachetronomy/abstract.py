"""`Cachetronomer`: what every client can do, as an abstract base class."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from cachetronomy.client import Cachetronaut

if TYPE_CHECKING:
    from cachetronomy.models import (
        AccessLogEntry,
        CacheEntry,
        CacheMetadata,
        EvictionLogEntry,
        ExpiredEntry,
    )
    from cachetronomy.profiles import Profile


class Cachetronomer(ABC):
    """The abstract base of clients, of which all of this package are instances.

    They are registered, not derived: `Cachetronaut` says what the methods do. A class of your own
    that derives from it has to have them all.
    """

    def get(self, key: str, model: Any = None, promote: bool = True) -> Any:  # noqa: ANN401, FBT001, FBT002 - as in the original
        """Return the value of a key, or `None`."""
        raise NotImplementedError

    def set(  # noqa: PLR0913, PLR0917 - as in the original
        self,
        key: str,
        value: object,
        time_to_live: float | None = None,
        version: int | None = None,
        tags: list[str] | None = None,
        prefer: str | None = None,
    ) -> Any:  # noqa: ANN401 - an async client returns an awaitable
        """Store a value under a key."""
        raise NotImplementedError

    def store_stats(self, limit: int = 10) -> list[AccessLogEntry] | None:
        """Return the access counts of all processes."""
        raise NotImplementedError

    def memory_stats(self) -> Any:  # noqa: ANN401 - as above
        """Return the access counts of this process."""
        raise NotImplementedError

    @abstractmethod
    def evict(self, key: str) -> Any:  # noqa: ANN401 - an async client returns an awaitable
        """Drop a key from memory."""

    @abstractmethod
    def delete(self, key: str) -> Any:  # noqa: ANN401 - as above
        """Delete a key from both tiers."""

    @abstractmethod
    def store_keys(self) -> list[str] | None:
        """Return the keys in the store."""

    @abstractmethod
    def memory_keys(self) -> list[str] | None:
        """Return the keys in memory."""

    @abstractmethod
    def clear_all(self) -> None:
        """Empty both tiers."""

    @abstractmethod
    def evict_all(self) -> None:
        """Empty memory."""

    @abstractmethod
    def clear_expired(self) -> list[ExpiredEntry] | None:
        """Remove what has expired."""

    @abstractmethod
    def clear_by_tags(self, tags: list[str], exact_match: bool = False) -> list[str] | None:  # noqa: FBT001, FBT002 - as in the original
        """Remove what has any of the tags, or exactly these."""

    @abstractmethod
    def clear_by_profile(self, profile_name: str) -> list[str] | None:
        """Remove what was stored while a profile was active."""

    @abstractmethod
    def key_metadata(self, key: str) -> CacheMetadata | None:
        """Return all of an entry but its value."""

    @abstractmethod
    def store_metadata(self) -> list[CacheMetadata] | None:
        """Return all of all entries but their values."""

    @abstractmethod
    def items(self) -> list[CacheEntry] | None:
        """Return all entries."""

    @abstractmethod
    def access_logs(self) -> list[AccessLogEntry] | None:
        """Return the access counts."""

    @abstractmethod
    def key_access_logs(self, key: str) -> AccessLogEntry | None:
        """Return the access count of a key."""

    @abstractmethod
    def clear_access_logs(self) -> None:
        """Forget all access counts."""

    @abstractmethod
    def delete_access_logs(self, key: str) -> None:
        """Forget the access count of a key."""

    @abstractmethod
    def get_profile(self, name: str) -> Profile | None:
        """Return a stored profile."""

    @abstractmethod
    def list_profiles(self) -> list[Profile] | None:
        """Return all stored profiles."""

    @abstractmethod
    def delete_profile(self, name: str) -> Any:  # noqa: ANN401 - as above
        """Delete a stored profile."""

    @abstractmethod
    def eviction_logs(self, limit: int | None = 1000) -> list[EvictionLogEntry] | None:
        """Return the log of evictions."""

    @abstractmethod
    def shutdown(self) -> Any:  # noqa: ANN401 - as above
        """Close the client."""


Cachetronomer.register(Cachetronaut)
