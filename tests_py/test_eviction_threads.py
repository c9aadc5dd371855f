"""Passes of eviction by hand, through threads that are driven one pass at a time."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable
from typing import Any

import pytest
from cachetronomy import CacheClosedError, Cachetronaut, InvalidSettingError
from cachetronomy._core import ManualClock, ManualGauge
from cachetronomy.core.eviction import MemoryEvictionThread, TTLEvictionThread
from conftest import PATIENCE

pytestmark = pytest.mark.both_clients


MEGABYTE = 1024 * 1024
THREADS = [
    (TTLEvictionThread, "ttl_cleanup_interval"),
    (MemoryEvictionThread, "memory_cleanup_interval"),
]


class Counting(Cachetronaut):
    """Counts passes, and fails in the first ones."""

    def __init__(self, failures: int) -> None:
        """Fail so often."""
        super().__init__(":memory:")
        self.failures = failures
        self.passes = threading.Semaphore(0)
        self.error: Exception = OSError("no more luck")

    def clear_expired(self) -> Any:
        self.passes.release()
        if self.failures:
            self.failures -= 1
            raise self.error
        return []

    def _relieve(self, free_memory_target: float) -> int:
        return len(self.clear_expired())


def test_a_pass_removes_what_has_expired(anywhere: Cachetronaut, clock: ManualClock) -> None:
    thread = TTLEvictionThread(anywhere, None, 60)
    anywhere.set("short", 1, ttl=10)
    anywhere.set("long", 1, ttl=100)
    assert thread.evict() is None
    assert len(anywhere.all_keys()) == 2
    clock.advance(10)
    assert thread.evict() is None
    assert anywhere.memory_keys() == anywhere.store_keys() == ["long"]
    assert [line.reason for line in anywhere.eviction_logs()] == ["time_eviction"]


@pytest.mark.parametrize("target", [500.0, 0.5])
def test_a_pass_drops_entries_while_memory_is_short(
    open_cache: Callable[..., Cachetronaut], target: float
) -> None:
    gauge = ManualGauge(1000 * MEGABYTE, 501 * MEGABYTE)
    cache = open_cache(_gauge=gauge)
    cache.set_many({"cold": 1, "hot": 2})
    cache.get("hot")
    thread = MemoryEvictionThread(cache, None, 5, target)
    assert thread.evict() is None
    assert sorted(cache.memory_keys()) == ["cold", "hot"]
    gauge.set(499 * MEGABYTE)
    assert thread.evict() is None
    assert cache.memory_keys() == []
    assert sorted(cache.store_keys()) == ["cold", "hot"]
    lines = cache.eviction_logs()
    assert {line.reason for line in lines} == {"memory_eviction"}
    assert [line.key for line in reversed(lines)] == ["cold", "hot"], "the coldest first"


@pytest.mark.parametrize(("kind", "interval"), THREADS)
def test_a_thread_makes_passes_until_it_is_stopped(kind: Any, interval: str) -> None:
    with Counting(failures=0) as cache:
        thread = kind(cache, loop=None, **{interval: 0.001})
        assert not thread.is_alive()
        assert thread.daemon
        thread.start()
        for _ in range(3):
            assert cache.passes.acquire(timeout=PATIENCE)
        assert thread.is_alive()
        thread.stop()
        thread.join(PATIENCE)
        assert not thread.is_alive()


@pytest.mark.parametrize(("kind", "interval"), THREADS)
def test_a_failed_pass_is_logged_and_the_next_one_is_made(
    kind: Any, interval: str, caplog: pytest.LogCaptureFixture
) -> None:
    with Counting(failures=2) as cache, caplog.at_level(logging.ERROR):
        thread = kind(cache, None, **{interval: 0.001})
        thread.start()
        for _ in range(4):
            assert cache.passes.acquire(timeout=PATIENCE)
        thread.stop()
        thread.join(PATIENCE)
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 2
    assert all(thread.name in message for message in messages)
    assert "no more luck" in caplog.text


@pytest.mark.parametrize(("kind", "interval"), THREADS)
def test_a_closed_cache_ends_the_thread_quietly(
    kind: Any, interval: str, caplog: pytest.LogCaptureFixture
) -> None:
    cache = Cachetronaut(":memory:")
    thread = kind(cache, None, **{interval: 0.001})
    thread.start()
    cache.close()
    thread.join(PATIENCE)
    assert not thread.is_alive()
    assert caplog.records == []
    with pytest.raises(CacheClosedError):
        thread.evict()


@pytest.mark.parametrize(("kind", "interval"), THREADS)
def test_stopping_evicts_nothing(kind: Any, interval: str) -> None:
    with Counting(failures=0) as cache:
        thread = kind(cache, None, **{interval: 1e30})
        thread.start()
        thread.stop()
        thread.join(PATIENCE)
        assert not thread.is_alive()
        assert not cache.passes.acquire(blocking=False)


@pytest.mark.parametrize(("kind", "interval"), THREADS)
def test_a_thread_without_an_interval_makes_no_passes(kind: Any, interval: str) -> None:
    with Counting(failures=0) as cache:
        thread = kind(cache, None, **{interval: 0})
        thread.start()
        thread.join(PATIENCE)
        assert not cache.passes.acquire(blocking=False)
        thread.evict()
        assert cache.passes.acquire(blocking=False)


@pytest.mark.parametrize(("kind", "interval"), THREADS)
@pytest.mark.parametrize("value", [-1, -0.5, math.nan])
def test_a_bad_interval_is_refused(
    cache: Cachetronaut, kind: Any, interval: str, value: float
) -> None:
    with pytest.raises(InvalidSettingError, match=interval):
        kind(cache, None, value)


@pytest.mark.parametrize("target", [-1, math.nan, "much"])
def test_a_bad_target_is_refused(cache: Cachetronaut, target: Any) -> None:
    with pytest.raises(InvalidSettingError, match="free_memory_target"):
        MemoryEvictionThread(cache, free_memory_target=target)
