"""`Cachetronaut`, under the import path of the original package."""

from __future__ import annotations

from cachetronomy.client import Cachetronaut

__all__ = ["Cachetronaut"]
