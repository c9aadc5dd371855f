"""`default_key_builder`, under the import path of the original package."""

from __future__ import annotations

from cachetronomy.keys import default_key_builder

__all__ = ["default_key_builder"]
