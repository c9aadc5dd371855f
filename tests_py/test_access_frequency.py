"""The counts of this process over all its clients, and the callback after each access."""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Callable, Iterator
from uuid import uuid4

import pytest
from cachetronomy import Cachetronaut, InvalidKeyError, InvalidSettingError
from cachetronomy.core import access_frequency
from cachetronomy.core.access_frequency import (
    deregister_key,
    get_hot_keys,
    hot_keys,
    memory_key_count,
    promote_key,
    register_callback,
)

pytestmark = pytest.mark.both_clients


@pytest.fixture
def key() -> Iterator[str]:
    """Name a key that no other test of this process uses."""
    key = f"key {uuid4()}"
    yield key
    deregister_key(key)


@pytest.fixture
def called(key: str) -> Iterator[list[str]]:
    """Collect what the callback is called with."""
    called: list[str] = []
    register_callback(called.append)
    yield called
    register_callback(None)


def test_both_names_are_one_function():
    assert get_hot_keys is hot_keys
    assert access_frequency.get_hot_keys is access_frequency.hot_keys


def test_keys_are_counted_by_hand(key: str) -> None:
    assert memory_key_count(key) == 0
    for _ in range(3):
        promote_key(key)
    assert memory_key_count(key) == 3
    assert (key, 3) in get_hot_keys(limit=None)
    deregister_key(key)
    deregister_key(key)
    assert memory_key_count(key) == 0
    assert key not in dict(get_hot_keys(None))


def test_hits_of_all_clients_add_up(open_cache: Callable[..., Cachetronaut], key: str) -> None:
    for cache in (open_cache(), open_cache(":memory:")):
        cache.set(key, 1)
        cache.get(key)
        cache.get(key, promote=False)
        cache.get(key)
    assert memory_key_count(key) == 4


def test_the_hottest_come_first(key: str) -> None:
    counts = {f"{key} {number}": 5 - number for number in range(4)}
    for name, count in counts.items():
        for _ in range(count):
            promote_key(name)
    ours = [(name, count) for name, count in get_hot_keys(None) if name in counts]
    assert ours == list(counts.items())
    assert get_hot_keys(5) == get_hot_keys(None)[:5]
    assert get_hot_keys() == get_hot_keys(10)
    assert get_hot_keys(0) == []
    for name in counts:
        deregister_key(name)


def test_the_callback_is_called_after_each_access(
    anywhere: Cachetronaut, key: str, called: list[str]
) -> None:
    anywhere.set(key, 1)
    assert called == []
    anywhere.get(key)
    anywhere.evict(key)
    anywhere.get(key)
    anywhere.get(key, promote=False)
    anywhere.get("missing")
    assert called == [key, key]
    promote_key(key)
    assert called == [key, key, key]
    register_callback(None)
    anywhere.get(key)
    assert len(called) == 3


def test_the_last_callback_counts(key: str, called: list[str]) -> None:
    others: list[str] = []
    register_callback(others.append)
    promote_key(key)
    assert (called, others) == ([], [key])


def test_the_count_is_there_when_the_callback_is_called(key: str, called: list[str]) -> None:
    counts: list[int] = []
    register_callback(lambda key: counts.append(memory_key_count(key)))
    promote_key(key)
    promote_key(key)
    assert counts == [1, 2]


@pytest.mark.sync_only  # on the loop, it cannot wait
def test_the_callback_may_use_the_cache(
    anywhere: Cachetronaut, key: str, called: list[str]
) -> None:
    register_callback(lambda key: anywhere.set("seen", key))
    anywhere.set(key, 1)
    assert anywhere.get(key) == 1
    register_callback(None)
    assert anywhere.get("seen") == key


def test_an_error_of_the_callback_is_logged_and_not_raised(
    anywhere: Cachetronaut, key: str, called: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    def fail(key: str) -> None:
        raise ValueError(key)

    register_callback(fail)
    anywhere.set(key, 1)
    with caplog.at_level(logging.DEBUG):
        assert anywhere.get(key) == 1
        promote_key(key)
    assert caplog.text.count(f"ValueError: {key}") == 2
    assert memory_key_count(key) == 2


def test_bad_input_is_refused(called: list[str], key: str) -> None:
    for call in (promote_key, deregister_key, memory_key_count):
        for bad in (None, 5, b"key"):
            with pytest.raises(InvalidKeyError):
                call(bad)
    with pytest.raises(InvalidSettingError, match="limit"):
        get_hot_keys(-1)
    with pytest.raises(TypeError):
        register_callback("no function")
    promote_key(key)
    assert called == [key], "the one before is still there"


def test_ctrl_c_in_a_callback_is_not_its_own(
    anywhere: Cachetronaut, key: str, request: pytest.FixtureRequest
) -> None:
    def interrupt(_: str) -> None:
        raise KeyboardInterrupt

    def read() -> None:
        anywhere.get(key)
        time.sleep(5)  # The main thread gets it as soon as it runs Python again: at once.

    anywhere.set(key, 1)
    request.addfinalizer(lambda: register_callback(None))
    # A shell lets its background jobs ignore Ctrl-C.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))
    register_callback(interrupt)
    with pytest.raises(KeyboardInterrupt):
        read()
