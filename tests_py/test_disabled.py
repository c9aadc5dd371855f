"""`disabled()`: a while in which a client finds nothing, stores nothing, and counts nothing."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import pytest
from cachetronomy import CacheClosedError, Cachetronaut, CachetronomyError, InvalidKeyError
from cachetronomy.core.access_frequency import register_callback

pytestmark = pytest.mark.both_clients


def test_reads_miss_and_writes_are_dropped(anywhere: Cachetronaut) -> None:
    anywhere.set_many({"a": 1, "n": 5}, ttl=60)
    before = anywhere.stats()
    with anywhere.disabled():
        assert anywhere.get("a", default="?") == "?"
        assert anywhere.get_many(["a", "n"]) == {}
        assert "a" not in anywhere
        assert anywhere.ttl("a") is anywhere.expire_at("a") is None
        anywhere.set("a", 2)
        anywhere.set("a", 2, ttl=0)
        anywhere.set_many({"a": 2, "b": 2})
        assert anywhere.add("new", 1) is False
        assert anywhere.incr("n", 3, default=10) == 13
        assert anywhere.pop("a", default="?") == "?"
        assert anywhere.touch("a", 5) is False
        assert anywhere.get_or_compute("a", lambda: 3) == 3
        assert sorted(anywhere.keys()) == ["a", "n"]
    assert anywhere.stats() == before
    assert anywhere.get_many(["a", "n"]) == {"a": 1, "n": 5}
    assert anywhere.memory_stats() == [("a", 1), ("n", 1)]


def test_what_removes_entries_still_does(anywhere: Cachetronaut) -> None:
    anywhere.set_many(dict.fromkeys("abcd", 1), tags=["t"])
    with anywhere.disabled():
        assert anywhere.delete("a") is True
        assert anywhere.delete_match("b") == 1
        assert sorted(anywhere.clear_by_tags("t")) == ["c", "d"]
    assert anywhere.get_many(["a", "b", "c", "d"]) == {}


def test_decorated_functions_run_each_time_and_nothing_is_stored(anywhere: Cachetronaut) -> None:
    runs: list[int] = []

    @anywhere
    def double(number: int) -> int:
        runs.append(number)
        return 2 * number

    @anywhere
    async def triple(number: int) -> int:
        runs.append(number)
        return 3 * number

    assert double(1) == 2
    with anywhere.disabled():
        assert [double(1), double(1), double(2), double(number=2)] == [2, 2, 4, 4]
        assert [asyncio.run(triple(3)), asyncio.run(triple(3))] == [9, 9]
        with pytest.raises(TypeError):
            double()
    assert runs == [1, 1, 1, 2, 2, 3, 3]
    assert anywhere.store_keys() == [double.key_for(1)]
    assert double(1) == 2
    assert len(runs) == 7


def test_it_nests_and_ends_with_an_exception_too(anywhere: Cachetronaut) -> None:
    anywhere.set("key", 1)
    again = anywhere.disabled()
    with again:
        with again, anywhere.disabled():
            assert anywhere.get("key") is None
        assert anywhere.get("key") is None
    assert anywhere.get("key") == 1
    with pytest.raises(ZeroDivisionError), again:
        raise ZeroDivisionError
    assert anywhere.get("key") == 1
    with pytest.raises(CachetronomyError, match="not entered"):
        again.__exit__(None, None, None)
    assert anywhere.get("key") == 1


def test_one_that_is_thrown_away_unfinished_ends(anywhere: Cachetronaut) -> None:
    anywhere.set("key", 1)
    unfinished = anywhere.disabled()
    unfinished.__enter__()
    unfinished.__enter__()
    assert anywhere.get("key") is None
    del unfinished
    assert anywhere.get("key") == 1


def test_it_holds_for_all_threads_of_this_client_and_for_no_other_client(
    open_cache: Callable[..., Cachetronaut],
) -> None:
    cache, other = open_cache(), open_cache()
    cache.set("key", 1)
    heard: list[str] = []
    found: list[object] = []
    register_callback(heard.append)
    try:
        with cache.disabled():
            thread = threading.Thread(target=lambda: found.append(cache.get("key")))
            thread.start()
            thread.join()
            assert found == [None]
            assert other.get("key") == 1
            other.set("key", 2)
        assert heard == ["key"]
        assert cache.get("key") == 2
        assert heard == ["key", "key"]
    finally:
        register_callback(None)


def test_a_disabled_client_still_refuses_and_still_closes(anywhere: Cachetronaut) -> None:
    function = anywhere(lambda: 1)
    with anywhere.disabled():
        with pytest.raises(InvalidKeyError):
            anywhere.get(5)
        with anywhere.lock("room"), pytest.raises(TimeoutError), anywhere.lock("room", timeout=0):
            pass
        anywhere.close()
        for call in (lambda: anywhere.get("k"), lambda: anywhere.set("k", 1), function):
            with pytest.raises(CacheClosedError):
                call()
