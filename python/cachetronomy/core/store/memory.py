"""`MISS`, under the import path of the original package."""

from __future__ import annotations

from cachetronomy._core import MISS

__all__ = ["MISS"]
