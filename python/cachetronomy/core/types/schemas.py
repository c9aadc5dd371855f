"""The models of rows, under the import path of the original package."""

from __future__ import annotations

from cachetronomy.models import (
    AccessLogEntry,
    CacheEntry,
    CacheMetadata,
    CustomQuery,
    EvictionLogEntry,
    ExpiredEntry,
)

__all__ = [
    "AccessLogEntry",
    "CacheEntry",
    "CacheMetadata",
    "CustomQuery",
    "EvictionLogEntry",
    "ExpiredEntry",
]
