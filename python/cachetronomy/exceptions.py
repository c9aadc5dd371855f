"""The tree of exceptions. The one Python module that the Rust core names."""

from __future__ import annotations


class CachetronomyError(Exception):
    """Base of every error this package raises.

    Raised by a decorated call whose function has run, it carries the result as `value`.
    """

    value: object = None


class CacheClosedError(CachetronomyError):
    """The client was used after `shutdown` (or `close`)."""


class CorruptEntryError(CachetronomyError, ValueError):
    """One stored entry cannot be read back; the other entries are not affected."""


class CorruptStoreError(CachetronomyError):
    """The file is not a database, or is damaged. It is never changed or removed by us."""


class SerializationError(CachetronomyError, ValueError, TypeError):
    """A value cannot be stored exactly. Nothing was stored."""


class StoreBusyError(CachetronomyError, TimeoutError):
    """Another process held the file's write lock for longer than `busy_timeout`."""


class StoreFullError(CachetronomyError, OSError):
    """The disk (or a size limit) has no room for the write."""


class StoreUnavailableError(CachetronomyError, ConnectionError):
    """The file or server cannot be opened, read or written."""


class InvalidSettingError(CachetronomyError, ValueError):
    """A setting or argument is out of range. Nothing was changed."""


class InvalidKeyError(CachetronomyError, TypeError):
    """A key is not a `str`. Nothing was changed."""
