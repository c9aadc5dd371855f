"""The eviction threads, under the import path of the original package."""

from __future__ import annotations

from cachetronomy.eviction import MemoryEvictionThread, TTLEvictionThread

__all__ = ["MemoryEvictionThread", "TTLEvictionThread"]
