"""Threads that evict in passes of their own, beside those that every client makes by itself."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

from cachetronomy import _core
from cachetronomy.exceptions import CacheClosedError, InvalidSettingError

if TYPE_CHECKING:
    from cachetronomy.async_client import AsyncCachetronaut
    from cachetronomy.client import Cachetronaut

_log = logging.getLogger(__name__)


class _EvictionThread(threading.Thread):
    """A daemon thread that makes a pass every so often until it is stopped."""

    def __init__(
        self, cache: Cachetronaut | AsyncCachetronaut, name: str, interval: float, setting: str
    ) -> None:
        if not interval >= 0:  # NaN is not either.
            message = f"{setting}: {interval!r} is not a pause; give seconds >= 0, 0 for no passes"
            raise InvalidSettingError(message)
        super().__init__(daemon=True, name=name)
        self.cache = cache
        # That of an async client may wait here.
        self._client: Cachetronaut = getattr(cache, "_client", None) or cache  # type: ignore[assignment]
        self._interval = min(interval, threading.TIMEOUT_MAX)
        self._stop_event = threading.Event()

    def evict(self) -> None:
        """Make one pass."""
        raise NotImplementedError

    def run(self) -> None:
        """Make passes until `stop`; one that fails is logged. A closed cache ends the thread."""
        while self._interval and not self._stop_event.wait(self._interval):
            try:
                self.evict()
            except CacheClosedError:  # noqa: PERF203 - a pass takes far longer
                return
            except Exception:  # noqa: BLE001 - it is logged, and the thread has to live on
                _log.exception("A pass of %s failed; the next one comes as planned", self.name)

    def stop(self) -> None:
        """Let the thread end, without another pass; `join` waits for that."""
        self._stop_event.set()


class TTLEvictionThread(_EvictionThread):
    """Removes expired entries from both tiers.

    Args:
        cache: the client, sync or async.
        loop: ignored; programs written for the original package give it.
        ttl_cleanup_interval: seconds between two passes; 0 for none but those of `evict`.

    Raises:
        InvalidSettingError: the interval is negative.
    """

    def __init__(
        self,
        cache: Cachetronaut | AsyncCachetronaut,
        loop: object = None,
        ttl_cleanup_interval: float = 60,
    ) -> None:
        """Prepare; `start` starts it."""
        super().__init__(cache, "ttl_eviction_thread", ttl_cleanup_interval, "ttl_cleanup_interval")
        self.loop = loop
        self.ttl_cleanup_interval = ttl_cleanup_interval

    def evict(self) -> None:
        """Remove what has expired by now."""
        self._client.clear_expired()


class MemoryEvictionThread(_EvictionThread):
    """Drops the coldest entries from memory while too little RAM is free; the store keeps them.

    Args:
        cache: the client, sync or async.
        loop: ignored; programs written for the original package give it.
        memory_cleanup_interval: seconds between two passes; 0 for none but those of `evict`.
        free_memory_target: RAM to keep free: megabytes, or a fraction of all up to 1.

    Raises:
        InvalidSettingError: the interval or the target is out of range.
    """

    def __init__(
        self,
        cache: Cachetronaut | AsyncCachetronaut,
        loop: object = None,
        memory_cleanup_interval: float = 5,
        free_memory_target: float = 500.0,
    ) -> None:
        """Prepare; `start` starts it."""
        super().__init__(
            cache, "memory_eviction_thread", memory_cleanup_interval, "memory_cleanup_interval"
        )
        self.loop = loop
        self.memory_cleanup_interval = memory_cleanup_interval
        self.free_memory_target = float(
            _core._check_setting("free_memory_target", free_memory_target)  # noqa: SLF001
        )

    def evict(self) -> None:
        """Look at the free memory once, and drop what has to go."""
        self._client._relieve(self.free_memory_target)  # noqa: SLF001
