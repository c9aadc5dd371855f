"""The counts of accesses, under the import path of the original package."""

from __future__ import annotations

from cachetronomy.hot_keys import (
    deregister_key,
    get_hot_keys,
    hot_keys,
    memory_key_count,
    promote_key,
    register_callback,
)

__all__ = [
    "deregister_key",
    "get_hot_keys",
    "hot_keys",
    "memory_key_count",
    "promote_key",
    "register_callback",
]
