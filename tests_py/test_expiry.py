"""An entry is returned until its deadline, and never from then on, by any tier or client."""

from __future__ import annotations

import math
import time
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from cachetronomy import MISS, Cachetronaut

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from subprocess import CompletedProcess

    from cachetronomy._core import ManualClock
    from conftest import Tier

pytestmark = pytest.mark.both_clients


DAY = 86_400
LIVES: list[tuple[Any, float]] = [
    (60, 60),
    (0.25, 0.25),
    (1e-9, 0.000_001),
    (Decimal("1.5"), 1.5),
    (timedelta(minutes=2), 120),
    (timedelta(microseconds=3), 0.000_003),
    ("1h30m", 5_400),
    ("90m", 5_400),
    ("1d", DAY),
    ("2d3h4m5s", 2 * DAY + 3 * 3_600 + 4 * 60 + 5),
    ("45s", 45),
    (None, 3_600),
]


@pytest.mark.parametrize(("ttl", "seconds"), LIVES, ids=str)
def test_an_entry_lives_exactly_as_long_as_told(
    cache: Cachetronaut, tier: Tier, clock: ManualClock, ttl: object, seconds: float
) -> None:
    cache.set("key", "value", ttl=ttl)
    reader = tier(cache)
    assert reader.get("key") == "value"
    clock.advance(seconds - 0.000_001)
    if seconds > 0.000_001:
        assert tier(cache).get("key") == "value"
    clock.advance(0.000_001)
    assert reader.get("key", default=MISS) is MISS
    assert cache.get("key", default=MISS) is MISS


def test_both_names_of_the_parameter_work_everywhere(
    cache: Cachetronaut, clock: ManualClock
) -> None:
    cache.set("a", 1, ttl=10)
    cache.set("b", 2, time_to_live=10)
    cache.set("c", 3, 10)
    cache.set_many({"d": 4}, ttl=10)
    cache.set_many({"e": 5}, time_to_live=10)
    cache.set_many({"f": 6}, 10)
    assert len(cache.all_keys()) == 6
    clock.advance(10)
    assert cache.all_keys() == []


@pytest.mark.parametrize("ttl", [math.inf, 10**400, timedelta.max, 1e300], ids=str)
def test_an_infinite_life_never_ends(
    cache: Cachetronaut,
    tier: Tier,
    clock: ManualClock,
    db_path: Path,
    query: Callable[..., Any],
    ttl: object,
) -> None:
    cache.set("key", 1, ttl=ttl)
    clock.advance(1_000 * 365 * DAY)
    assert tier(cache).get("key") == 1
    assert cache.clear_expired() == []
    assert query(db_path, "SELECT expire_at FROM cache") == [["9999-12-31T23:59:59.999999+00:00"]]


@pytest.mark.parametrize("ttl", [0, 0.0, -0.0, "0s", timedelta(0)], ids=str)
def test_a_life_of_nothing_keeps_nothing_and_removes_what_was_there(
    anywhere: Cachetronaut, ttl: object
) -> None:
    anywhere.set("key", "old")
    anywhere.set_many({"a": "old", "b": "old"})
    assert anywhere.set("key", "new", ttl=ttl) is None
    assert anywhere.set_many({"a": "new"}, ttl=ttl) is None
    anywhere.set("never was", 1, ttl=ttl)
    assert anywhere.get("key", default=MISS) is MISS
    assert anywhere.all_keys() == anywhere.memory_keys() == ["b"]


def test_no_method_of_either_tier_shows_an_expired_entry(
    cache: Cachetronaut, tier: Tier, clock: ManualClock
) -> None:
    cache.set_many({"a": 1, "b": 2}, ttl=10, tags=["t"])
    cache.set("c", 3, ttl=11, tags=["t"])
    reader = tier(cache)
    reader.get_many(["a", "b", "c"])
    clock.advance(10)
    for client in (reader, cache):
        assert client.get("a") is None
        assert client.get("b", version=1, default="default") == "default"
        assert client.get_many(["a", "b", "c"]) == {"c": 3}
        assert client.store_keys() == client.memory_keys() == client.all_keys() == ["c"]
    assert reader.delete("a") is False, "an expired entry does not exist"
    assert reader.delete_many(["b"]) == 0
    assert reader.clear_by_tags("t") == ["c"]


def test_a_new_value_starts_a_new_life(cache: Cachetronaut, tier: Tier, clock: ManualClock) -> None:
    cache.set("key", 1, ttl=10)
    clock.advance(9)
    cache.set("key", 2, ttl=10)
    clock.advance(9)
    reader = tier(cache)
    assert reader.get("key") == 2
    clock.advance(1)
    assert reader.get("key") is None
    cache.set("key", 3, ttl=10)
    assert reader.get("key") == 3


def test_reading_does_not_lengthen_a_life(
    cache: Cachetronaut, tier: Tier, clock: ManualClock
) -> None:
    cache.set("key", 1, ttl=10)
    reader = tier(cache)
    for _ in range(10):
        assert reader.get("key") == 1
        clock.advance(1)
    assert reader.get("key") is None


def test_clear_expired_removes_and_returns_what_has_ended(
    cache: Cachetronaut, tier: Tier, clock: ManualClock, db_path: Path, query: Callable[..., Any]
) -> None:
    cache.set_many({f"old{n}": n for n in range(3)}, ttl=10)
    cache.set("young", 1, ttl=20)
    before = datetime.now(timezone.utc)
    clock.advance(10)
    reader = tier(cache)
    removed = reader.clear_expired()
    assert sorted(entry.key for entry in removed) == ["old0", "old1", "old2"]
    for entry in removed:
        assert entry.expire_at.utcoffset() == timedelta(0)
        assert abs(entry.expire_at - before - timedelta(seconds=10)) < timedelta(seconds=60)
    assert reader.clear_expired() == []
    assert reader.get("young") == 1
    assert query(db_path, "SELECT key FROM cache") == [["young"]]
    assert cache.memory_keys() in ([], ["young"])


def test_clear_expired_sweeps_more_than_one_transaction_holds(
    anywhere: Cachetronaut, clock: ManualClock
) -> None:
    anywhere.set_many({f"k{n}": n for n in range(3_500)}, ttl=1, tags=["t"])
    anywhere.set("stays", 1)
    clock.advance(2)
    assert len(anywhere.clear_expired()) == 3_500
    assert anywhere.all_keys() == ["stays"]
    assert anywhere.stats()["expired"] == 3_500


def test_a_clock_that_steps_back_revives_nothing_that_was_swept(
    cache: Cachetronaut, clock: ManualClock
) -> None:
    cache.set("key", 1, ttl=10)
    clock.advance(10)
    cache.clear_expired()
    clock.advance(-5)
    assert cache.get("key") is None


def test_another_process_sees_the_same_deadline(
    db_path: Path, run_python: Callable[..., CompletedProcess[str]]
) -> None:
    code = (
        "import sys\n"
        "from cachetronomy import Cachetronaut\n"
        "from cachetronomy._core import ManualClock\n"
        "clock = ManualClock()\n"
        "cache = Cachetronaut(sys.argv[1], _clock=clock)\n"
        "print(cache.get('long'), cache.get('short'))\n"
        "clock.advance(600)\n"
        "print(cache.get('long'), cache.get('short'), cache.all_keys())\n"
    )
    with Cachetronaut(db_path) as cache:
        cache.set("short", 1, ttl=300)
        cache.set("long", 2, ttl="1h")
        assert run_python(code, db_path).stdout == "2 1\n2 None ['long']\n"


def test_with_the_real_clock_nothing_is_returned_after_its_deadline(db_path: Path) -> None:
    with Cachetronaut(db_path) as cache:
        for number in range(200):
            cache.set("key", number, ttl=0.001)
            # It was fixed before `set` returned; clocks are read to the microsecond.
            deadline = time.time() + 0.001_002
            begun = time.time()
            while cache.get("key") is not None:
                assert begun < deadline
                begun = time.time()
