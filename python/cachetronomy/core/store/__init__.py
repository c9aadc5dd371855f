"""`SQLiteStore` and `AsyncSQLiteStore`, under the import path of the original package."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cachetronomy.store import SQLiteStore

if TYPE_CHECKING:
    from cachetronomy.async_store import AsyncSQLiteStore

__all__ = ["AsyncSQLiteStore", "SQLiteStore"]


def __getattr__(name: str) -> object:
    """Import what needs asyncio when it is asked for."""
    if name == "AsyncSQLiteStore":
        from cachetronomy.async_store import AsyncSQLiteStore  # noqa: PLC0415

        return globals().setdefault(name, AsyncSQLiteStore)
    message = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(message)


def __dir__() -> list[str]:
    """Name also what is not imported yet."""
    return sorted({*globals(), *__all__})
