"""`Cachetronomer`, under the import path of the original package."""

from __future__ import annotations

from cachetronomy.abstract import Cachetronomer

__all__ = ["Cachetronomer"]
