"""`AsyncCachetronaut`, under the import path of the original package."""

from __future__ import annotations

from cachetronomy.async_client import AsyncCachetronaut

__all__ = ["AsyncCachetronaut"]
