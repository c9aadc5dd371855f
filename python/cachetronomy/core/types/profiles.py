"""`Profile`, under the import path of the original package."""

from __future__ import annotations

from cachetronomy.profiles import Profile

__all__ = ["Profile"]
