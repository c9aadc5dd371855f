"""Nothing is kept for ever: values, clients, threads, open files."""

from __future__ import annotations

import gc
import sys
import weakref
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from cachetronomy import Cachetronaut

if TYPE_CHECKING:
    from cachetronomy._core import ManualClock


def test_a_cache_in_a_cycle_is_collected_and_closed(tmp_path: Path) -> None:
    ends: list[int] = []

    def make(number: int) -> weakref.ref[Cachetronaut]:
        cache = Cachetronaut(tmp_path / f"{number}.db")

        @cache
        def fib(n: int) -> int:
            return n if n < 2 else fib(n - 1) + fib(n - 2)

        assert fib(20) == 6765
        value = {1, 2}
        weakref.finalize(value, ends.append, number).atexit = False
        cache.set("value", value)
        return weakref.ref(cache)

    references = [make(number) for number in range(5)]
    gc.collect()
    assert [reference() for reference in references] == [None] * 5
    assert sorted(ends) == list(range(5))
    assert not list(tmp_path.glob("*-wal")), "the files were closed"


def test_references_do_not_leak(anywhere: Cachetronaut, clock: ManualClock) -> None:
    value, default, tag = ["value"], ["default"], "a tag of its own"
    key, key_builder = "a key of its own", (lambda *_: "built")
    function = anywhere(key_builder=key_builder, tags=[tag], ttl=50)(lambda *_: value)
    watched_objects = [value, default, tag, key, key_builder, None, function]

    def use() -> None:
        anywhere.set(key, value, tags=[tag], ttl=50)
        assert anywhere.get(key) is value
        assert anywhere.get("missing", default=default) is default
        assert anywhere.get_many([key, "missing"]) == {key: value}
        assert anywhere.get(key, model=list[str]) == value
        anywhere.set_many({key: value, "other": value}, tags=[tag])
        assert function(value) is value
        anywhere.evict(key)
        anywhere.get(key)
        anywhere.set(key, value)
        anywhere.delete(key)
        for wrong in (lambda: anywhere.set(key, object()), lambda: anywhere.get(key, version=0)):
            with pytest.raises(ValueError, match=r"value|version"):
                wrong()
        anywhere.set("expires", value, ttl=1)
        clock.advance(60)
        anywhere.get("expires")
        anywhere.clear_expired()
        anywhere.clear_by_tags(tag)
        anywhere.clear_all()

    for _ in range(3):
        use()
    gc.collect()
    before = [sys.getrefcount(one) for one in watched_objects]
    for _ in range(200):
        use()
    gc.collect()
    after = [sys.getrefcount(one) for one in watched_objects]
    grown = [a - b for a, b in zip(after, before, strict=True)]
    assert all(abs(growth) < 50 for growth in grown), grown
    assert grown[:3] == [0, 0, 0]


def test_closing_lets_go_of_every_value(db_path: Path) -> None:
    value = ["value"]
    before = sys.getrefcount(value)
    for end in ("close", "drop"):
        cache = Cachetronaut(db_path)
        cache.set_many({f"k{n}": value for n in range(50)})
        if end == "close":
            cache.close()
        del cache
        assert sys.getrefcount(value) == before


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="counts in /proc")
def test_a_thousand_clients_leave_no_thread_and_no_file_open(tmp_path: Path) -> None:
    def count() -> tuple[int, int]:
        gc.collect()
        task, files = Path("/proc/self/task"), Path("/proc/self/fd")
        return len(list(task.iterdir())), len(list(files.iterdir()))

    def use(number: int) -> None:
        where: object = ":memory:" if number % 4 == 0 else tmp_path / f"{number % 20}.db"
        cache = Cachetronaut(where)
        function = cache(lambda: number)
        if number % 3:
            cache.set("key", number)
            assert cache.get("key") == number
            assert function() is not None
        if number % 2:
            cache.close()

    for number in range(20):
        use(number)
    before = count()
    for number in range(1_000):
        use(number)
    threads, files = count()
    assert threads <= before[0]
    assert files <= before[1]
