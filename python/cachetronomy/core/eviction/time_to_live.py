"""`TTLEvictionThread`, under the import path of the original package."""

from __future__ import annotations

from cachetronomy.eviction import TTLEvictionThread

__all__ = ["TTLEvictionThread"]
