"""A profile that is assigned to the async client is switched to before anything else is done."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from cachetronomy import AsyncCachetronaut, InvalidSettingError, Profile

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

WEB = Profile(name="web", time_to_live=5, tags=["web"])

Call = Any  # What a test does with a client: it takes one and returns an awaitable.


async def decorated(cache: AsyncCachetronaut) -> None:
    @cache
    async def double(number: int) -> int:
        return 2 * number

    assert await double(1) == 2


async def refreshed(cache: AsyncCachetronaut) -> None:
    @cache
    async def double(number: int) -> int:
        return 2 * number

    assert await double.refresh(1) == 2


CALLS: dict[str, Callable[[AsyncCachetronaut], Awaitable[Any]]] = {
    "set": lambda cache: cache.set("key", 1),
    "add": lambda cache: cache.add("key", 1),
    "incr": lambda cache: cache.incr("key"),
    "set_many": lambda cache: cache.set_many({"key": 1}),
    "get_or_compute": lambda cache: cache.get_or_compute("key", lambda: 1),
    "decorated": decorated,
    "refresh": refreshed,
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize("is_open", [False, True])
def test_an_assigned_profile_holds_for_the_next_write(
    db_path: Path, call: Callable[[AsyncCachetronaut], Awaitable[Any]], is_open: bool
) -> None:
    async def main() -> None:
        async with AsyncCachetronaut(db_path) as opened:
            cache = opened if is_open else AsyncCachetronaut(db_path)
            cache.profile = WEB
            await call(cache)
            (entry,) = await cache.store_metadata()
            assert (entry.saved_by_profile, entry.tags) == ("web", ["web"])
            assert cache.profile == WEB
            await cache.shutdown()

    asyncio.run(main())


@pytest.mark.parametrize("reads_the_file", [False, True])
def test_a_get_that_memory_does_not_answer_switches_first(
    db_path: Path, reads_the_file: bool
) -> None:
    async def main() -> None:
        async with AsyncCachetronaut(db_path) as cache:
            if reads_the_file:
                await cache.set("key", 1)
                await cache.evict("key")
            cache.profile = "web"
            assert await cache.get("key") == (1 if reads_the_file else None)
            assert cache.profile.name == "web"

    asyncio.run(main())


def test_the_store_switches_first_too(db_path: Path) -> None:
    async def main() -> None:
        async with AsyncCachetronaut(db_path) as cache:
            cache.profile = "web"
            assert [one.name for one in await cache.store.list_profiles()] == ["default", "web"]

    asyncio.run(main())


def test_of_two_that_are_assigned_the_later_one_holds(db_path: Path) -> None:
    async def main() -> None:
        async with AsyncCachetronaut(db_path) as cache:
            cache.profile = "one"
            cache.profile = "two"
            await asyncio.gather(*(cache.set(str(number), number) for number in range(10)))
            assert {entry.saved_by_profile for entry in await cache.store_metadata()} == {"two"}

    asyncio.run(main())


@pytest.mark.parametrize("wrong", ["", 5, b"p", {"name": "p"}])
def test_what_is_no_profile_is_refused_and_changes_nothing(db_path: Path, wrong: Any) -> None:
    async def main() -> None:
        async with AsyncCachetronaut(db_path) as cache:
            with pytest.raises(InvalidSettingError, match="profile"):
                cache.profile = wrong
            await cache.set("key", 1)
            assert cache.profile.name == "default"

    asyncio.run(main())
