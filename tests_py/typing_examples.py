"""Calls that a type checker must accept, with the types it must see. Checked, and never run."""

from __future__ import annotations

from collections.abc import Coroutine
from datetime import datetime, timedelta
from typing import Any

from cachetronomy import Cachetronaut, Profile
from cachetronomy.core.store import SQLiteStore
from cachetronomy.core.types.schemas import (
    AccessLogEntry,
    CacheEntry,
    CacheMetadata,
    CustomQuery,
    EvictionLogEntry,
)
from typing_extensions import assert_type

cache = Cachetronaut(db_path=":memory:", max_items_in_memory=None)


class User:
    """Stands for a caller's class."""

    @cache
    def age(self, year: int) -> int:
        """Return an age."""
        return year


@cache
def bare(n: int, *, name: str = "x") -> dict[str, int]:
    """Return something."""
    return {name: n}


@cache(ttl=timedelta(hours=1), tags="users", version=2)
def with_options(n: int) -> list[int]:
    """Return something."""
    return [n]


@cache(ttl="1h30m", tags=["a", "b"])
async def coroutine(n: int) -> bytes:
    """Return something."""
    return bytes(n)


async def uses() -> None:
    """Use everything."""
    assert_type(bare(1, name="y"), dict[str, int])
    assert_type(with_options(1), list[int])
    pending: Coroutine[Any, Any, bytes] = coroutine(1)
    assert_type(await pending, bytes)
    assert_type(await coroutine(1), bytes)
    assert_type(User().age(2026), int)
    assert_type(bare.key_for(1, name="y"), str)
    assert_type(bare.cache.stats(), dict[str, Any])
    assert_type(cache.get("k", User), User | None)
    assert_type(cache.get("k", model=User, default=0), User | int)
    bare("wrong")  # type: ignore[arg-type]
    bare.key_for(unknown=1)  # type: ignore[call-arg]
    assert_type(cache.profile, Profile)
    cache.profile = Profile(name="p", time_to_live=60)
    assert_type(cache.set_profile("p"), Profile)
    assert_type(cache.update_active_profile(tags=["t"]), Profile)
    assert_type(cache.get_profile("p"), Profile | None)
    assert_type(cache.items(), list[CacheEntry])
    assert_type(cache.key_metadata("k"), CacheMetadata | None)
    assert_type(cache.access_logs(limit=5), list[AccessLogEntry])
    assert_type(cache.eviction_logs(), list[EvictionLogEntry])
    assert_type(cache.store, SQLiteStore)
    assert_type(cache.store.get("k"), CacheEntry | None)
    cache.store.custom_query(CustomQuery(query="SELECT 1"))
    assert_type(cache.invalidate_tags(["t"]), list[str])
    assert_type(cache.check(fix=True), list[str])
    assert_type(len(cache), int)
    assert_type(cache.add("k", 1, ttl=60), bool)
    assert_type(cache.incr("k", 2, default=5), int)
    assert_type(cache.decr("k"), int)
    assert_type(cache.pop("k", default=[]), Any)
    assert_type(cache.touch("k", ttl="1h"), bool)
    assert_type(cache.ttl("k"), float | None)
    assert_type(cache.expire_at("k"), datetime | None)
    assert_type(cache.keys("user:*", tag="t"), list[str])
    assert_type(cache.delete_match("user:*"), int)
    with cache.lock("job", ttl=5, timeout=0.5), cache.disabled():
        pass
    cache.vacuum()
    cache.backup("copy.db")
    with cache as same:
        assert_type(same, Cachetronaut)
