"""`CacheSettings`, under the import path of the original package."""

from __future__ import annotations

from cachetronomy.settings import CacheSettings

__all__ = ["CacheSettings"]
