"""`SQLiteStore`, under the import path of the original package."""

from __future__ import annotations

from cachetronomy.store import SQLiteStore

__all__ = ["SQLiteStore"]
