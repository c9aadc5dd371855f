"""Which keys this process reads most, over all its clients."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cachetronomy import _core

if TYPE_CHECKING:
    from collections.abc import Callable


def get_hot_keys(limit: int | None = 10) -> list[tuple[str, int]]:
    """Return `[(key, count)]` of this process since it started, hottest first.

    Raises:
        InvalidSettingError: `limit` is negative; `None` is for all.
    """
    return _core._hot_keys(limit)  # noqa: SLF001


hot_keys = get_hot_keys


def promote_key(key: str) -> None:
    """Count one more access of a key.

    Raises:
        InvalidKeyError: `key` is not a `str`.
    """
    _core._promote_key(key)  # noqa: SLF001


def deregister_key(key: str) -> None:
    """Forget the count of a key.

    Raises:
        InvalidKeyError: `key` is not a `str`.
    """
    _core._deregister_key(key)  # noqa: SLF001


def memory_key_count(key: str) -> int:
    """Return how often this process has read a key.

    Raises:
        InvalidKeyError: `key` is not a `str`.
    """
    return _core._memory_key_count(key)  # noqa: SLF001


def register_callback(callback: Callable[[str], object] | None) -> None:
    """Have `callback(key)` called after each access, in place of the one before; `None` for none.

    An exception in it is logged, and never reaches who reads.

    Raises:
        TypeError: it cannot be called.
    """
    _core._register_callback(callback)  # noqa: SLF001
