"""`AsyncSQLiteStore`, under the import path of the original package."""

from __future__ import annotations

from cachetronomy.async_store import AsyncSQLiteStore

__all__ = ["AsyncSQLiteStore"]
