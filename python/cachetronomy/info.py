"""What `cache_info()` of a decorated function returns."""

from __future__ import annotations

from typing import NamedTuple


class CacheInfo(NamedTuple):
    """Counts of one decorated function, as `functools.lru_cache` has them.

    Attributes:
        hits: calls of this process that were answered from the cache.
        misses: calls of this process that were not.
        maxsize: entries of all functions together that memory holds; `None` for no limit.
        currsize: live entries of this function in the store.
    """

    hits: int
    misses: int
    maxsize: int | None
    currsize: int
