"""A two-tier cache for Python: live objects in memory over a SQLite file."""

from __future__ import annotations

from cachetronomy._core import MISS, __version__
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

__all__ = [
    "MISS",
    "CacheClosedError",
    "Cachetronaut",
    "CachetronomyError",
    "CorruptEntryError",
    "CorruptStoreError",
    "InvalidKeyError",
    "InvalidSettingError",
    "SerializationError",
    "StoreBusyError",
    "StoreFullError",
    "StoreUnavailableError",
    "__version__",
]
