"""`MemoryEvictionThread`, under the import path of the original package."""

from __future__ import annotations

from cachetronomy.eviction import MemoryEvictionThread

__all__ = ["MemoryEvictionThread"]
