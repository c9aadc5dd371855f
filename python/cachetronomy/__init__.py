"""A two-tier cache for Python: live objects in memory over a SQLite file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cachetronomy._core import MISS, BoundCachedFunction, CachedFunction, __version__
from cachetronomy.client import Cachetronaut
from cachetronomy.exceptions import (
    CacheClosedError,
    CachetronomyError,
    CorruptEntryError,
    CorruptStoreError,
    InvalidKeyError,
    InvalidSettingError,
    SerializationError,
    StoreBusyError,
    StoreFullError,
    StoreUnavailableError,
)
from cachetronomy.info import CacheInfo

if TYPE_CHECKING:
    from cachetronomy.async_client import AsyncCachetronaut
    from cachetronomy.profiles import Profile
    from cachetronomy.settings import CacheSettings

__all__ = [
    "MISS",
    "AsyncCachetronaut",
    "BoundCachedFunction",
    "CacheClosedError",
    "CacheInfo",
    "CacheSettings",
    "CachedFunction",
    "Cachetronaut",
    "CachetronomyError",
    "CorruptEntryError",
    "CorruptStoreError",
    "InvalidKeyError",
    "InvalidSettingError",
    "Profile",
    "SerializationError",
    "StoreBusyError",
    "StoreFullError",
    "StoreUnavailableError",
    "__version__",
]


def __getattr__(name: str) -> object:
    """Import what needs pydantic or asyncio when it is asked for: most programs never do."""
    if name == "AsyncCachetronaut":
        from cachetronomy.async_client import AsyncCachetronaut  # noqa: PLC0415

        return globals().setdefault(name, AsyncCachetronaut)
    if name == "Profile":
        from cachetronomy.profiles import Profile  # noqa: PLC0415

        return globals().setdefault(name, Profile)
    if name == "CacheSettings":
        from cachetronomy.settings import CacheSettings  # noqa: PLC0415

        return globals().setdefault(name, CacheSettings)
    message = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(message)


def __dir__() -> list[str]:
    """Name also what is not imported yet."""
    return sorted({*globals(), *__all__})
