"""Looking after the file: copies, free room, repair, health, the sizes of a client."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cachetronomy import CacheClosedError, Cachetronaut, InvalidKeyError, InvalidSettingError
from cachetronomy._core import ManualClock, ManualGauge

pytestmark = pytest.mark.both_clients


MB = 1 << 20


def test_a_copy_holds_everything_as_it_was_and_what_was_pending(
    anywhere: Cachetronaut, tmp_path: Path, open_cache: Callable[..., Cachetronaut]
) -> None:
    anywhere.set("a", (1, 2), ttl=math.inf, tags=["t"])
    anywhere.set("b", "2", version=3)
    anywhere.update_active_profile(time_to_live=77)
    anywhere.get("a")
    copy = tmp_path / "copy.db"
    anywhere.backup(copy)
    anywhere.clear_all()
    other = open_cache(copy)
    assert other.get_many(["a", "b"]) == {"a": (1, 2), "b": "2"}
    assert other.key_metadata("a").tags == ["t"]
    assert other.key_metadata("b").version == 3
    assert other.time_to_live == 77
    assert other.key_access_logs("a").access_count == 2  # One of it is this client's own.


@pytest.mark.parametrize("path", ["", 5, None, "taken.db", "no/such/folder/copy.db"])
def test_a_copy_that_cannot_be_made_is_an_error_and_leaves_nothing(
    cache: Cachetronaut, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("taken.db").write_bytes(b"somebody's")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises((InvalidSettingError, ConnectionError)):
        cache.backup(path)
    assert sorted(tmp_path.rglob("*")) == before
    assert Path("taken.db").read_bytes() == b"somebody's"


def test_free_room_is_given_back(cache: Cachetronaut, db_path: Path) -> None:
    cache.set_many({f"{n}": "x" * 10_000 for n in range(500)})
    cache.set("kept", 1)
    cache.delete_many([f"{n}" for n in range(500)])
    cache.vacuum()
    assert cache.stats()["store_bytes"] < 300_000
    assert db_path.stat().st_size < 300_000
    assert cache.get("kept") == 1


def test_repair_removes_what_cannot_be_read_and_keeps_the_rest(
    cache: Cachetronaut, db_path: Path, query: Callable[..., Any]
) -> None:
    cache.set_many({"bad": 1, "good": 2}, tags=["t"])
    query(db_path, "UPDATE cache SET expire_at = 'garbage' WHERE key = 'bad'")
    found = cache.check()
    assert len(found) == 1
    assert "bad" in found[0]
    assert cache.check(fix=True) == found
    assert cache.check() == []
    assert query(db_path, "SELECT key FROM cache") == [["good"]]
    assert cache.clear_by_tags("t") == ["good"]


def test_a_client_has_a_length_members_and_is_always_true(
    anywhere: Cachetronaut, clock: ManualClock
) -> None:
    assert len(anywhere) == 0
    assert anywhere
    anywhere.set("a", None, ttl=60)
    anywhere.set("b", 1)
    assert len(anywhere) == 2
    assert "a" in anywhere
    assert "absent" not in anywhere
    clock.advance(60)
    assert len(anywhere) == 1
    assert "a" not in anywhere
    assert anywhere.memory_stats() == []  # Looking is no hit.
    with pytest.raises(InvalidKeyError):
        assert 5 not in anywhere


def test_health_says_what_is_short(
    open_cache: Callable[..., Cachetronaut], db_path: Path, query: Callable[..., Any]
) -> None:
    gauge = ManualGauge(1_000 * MB, 600 * MB)
    cache = open_cache(_gauge=gauge)
    cache.set("a", 1)
    assert cache.health_check() == {
        "status": "healthy",
        "db_accessible": True,
        "memory_ok": True,
        "store_keys_count": 1,
        "memory_keys_count": 1,
    }
    gauge.set(499 * MB)
    assert cache.health_check()["status"] == "degraded"
    assert not cache.health_check()["memory_ok"]
    gauge.set(600 * MB)
    query(db_path, "ALTER TABLE cache RENAME TO elsewhere")
    assert cache.health_check() == {
        "status": "unhealthy",
        "db_accessible": False,
        "memory_ok": True,
        "store_keys_count": 0,
        "memory_keys_count": 1,
    }
    query(db_path, "ALTER TABLE elsewhere RENAME TO cache")
    assert cache.health_check()["status"] == "healthy"


@pytest.mark.parametrize("method", ["vacuum", "check", "health_check", "flush"])
def test_a_closed_client_says_so(cache: Cachetronaut, method: str) -> None:
    cache.close()
    with pytest.raises(CacheClosedError):
        getattr(cache, method)()
