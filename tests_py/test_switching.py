"""Profiles are switched while threads and processes write: each write is whole, and none stale."""

from __future__ import annotations

import os
import random
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest
from cachetronomy import Cachetronaut, Profile
from cachetronomy._core import ManualClock
from conftest import Child

SECONDS: Final = float(os.environ.get("CACHETRONOMY_SWITCH_SECONDS", "1.5"))
WRITERS = 4
KEYS_OF_EACH = 12
ENOUGH: Final = 20  # switches, and checks with one profile active: fewer prove nothing
PROFILES = [
    Profile(
        name=f"p{number}",
        time_to_live=100 * (number + 1),
        tags=[f"t{number}", f"u{number}", "all"][number % 2 :],
        max_items_in_memory=cap,
        ttl_cleanup_interval=number,
        memory_based_eviction=False,
    )
    for number, cap in enumerate((3, 40, 0, 9))
]
OWN_LIFE: Final = 7  # seconds; of writes that name one

SWITCHES: dict[str, Callable[[Cachetronaut, Profile], Any]] = {
    "assigned": lambda cache, profile: setattr(cache, "profile", profile),
    "assigned by name": lambda cache, profile: setattr(cache, "profile", profile.name),
    "set": lambda cache, profile: cache.set_profile(profile),
    "updated": lambda cache, profile: cache.update_active_profile(profile),
    "updated by fields": lambda cache, profile: cache.update_active_profile(**profile.model_dump()),
}


def in_place(cache: Cachetronaut, profile: Profile) -> None:
    """Give the active profile the fields of another, but for its name."""
    cache.update_active_profile(**profile.model_dump(exclude={"name"}))


class Load:
    """Threads that write and one that switches: what each may find is known at every moment."""

    def __init__(self, cache: Cachetronaut, prefix: str = "") -> None:
        """Begin with the first profile, all of which are stored."""
        self.cache = cache
        self.prefix = prefix
        self.problems: list[str] = []
        self.history = [PROFILES[0]]
        # Even: the last of the history is active. Odd: it is being made active.
        self.moment = 0
        self.certain = 0  # writes, and looks at memory, with one profile active throughout
        self.over = threading.Event()
        for profile in reversed(PROFILES):
            cache.profile = profile
        cache.set(f"{prefix}start", 1, ttl=OWN_LIFE)
        start = cache.key_metadata(f"{prefix}start")
        assert start is not None
        self.now = start.expire_at - timedelta(seconds=OWN_LIFE)  # The clock stands still.

    @contextmanager
    def active(self) -> Iterator[list[Profile]]:
        """Fill a list with the profiles that were active meanwhile; mostly it is one."""
        active: list[Profile] = []
        before = self.moment
        yield active
        after = self.moment
        active += self.history[before // 2 : (after + 1) // 2 + 1]
        self.certain += len(active) == 1

    def switch(self, how: Callable[[Cachetronaut, Profile], Any], profile: Profile) -> None:
        """Switch, and keep the history."""
        self.history.append(profile)
        self.moment += 1
        how(self.cache, profile)
        self.moment += 1

    def check_row(self, key: str, active: list[Profile], life: int | None) -> None:
        """Compare what is stored with the profiles that may have made it."""
        row = self.cache.key_metadata(key)
        assert row is not None, key
        found = (row.saved_by_profile, row.expire_at, row.tags)
        if found not in [self.made_by(profile, life) for profile in active]:
            names = [profile.name for profile in active]
            self.problems.append(f"{key}: {found} was written while {names} was active")

    def made_by(self, profile: Profile, life: int | None) -> tuple[str, datetime, list[str]]:
        """Tell what a write makes under a profile."""
        seconds = profile.time_to_live if life is None else life
        return profile.name, self.now + timedelta(seconds=seconds), profile.tags

    def check_cap(self) -> None:
        """Compare what is in memory with the cap."""
        with self.active() as active:
            count = len(self.cache.memory_keys())
        cap = max(profile.max_items_in_memory or 0 for profile in active)
        if count > cap:
            self.problems.append(f"{count} entries are in memory, of {cap} at most")

    def write(self, me: int) -> None:
        """Write and read keys of one's own until it is over."""
        dice, cache = random.Random(me), self.cache
        function = cache(key_builder=lambda _, args, __: args[0])(lambda _, value: value)
        number = 0
        while not self.over.is_set():
            number += 1
            key = f"{self.prefix}{me} {dice.randrange(KEYS_OF_EACH)}"
            life = None
            kind = dice.randrange(5)
            if kind >= 3:
                cache.delete(key)
            with self.active() as active:
                if kind == 0:
                    cache.set(key, number)
                elif kind == 1:
                    cache.set_many({f"{key} more": number, key: number})
                elif kind == 2:
                    life = OWN_LIFE
                    cache.set(key, number, ttl=life)
                elif kind == 3:
                    assert function(key, number) == number
                else:
                    assert cache.get_or_compute(key, lambda number=number: number) == number
            self.check_row(key, active, life)
            assert cache.get(key) == number
            self.check_cap()

    def switch_all_the_time(self, ways: list[Callable[[Cachetronaut, Profile], Any]]) -> None:
        """Switch until it is over."""
        dice = random.Random(self.prefix)
        while not self.over.wait(dice.uniform(0, 0.005)):
            profile = dice.choice(PROFILES)
            if ways == [in_place]:
                profile = profile.model_copy(update={"name": PROFILES[0].name})
            self.switch(dice.choice(ways), profile)

    def run(self, seconds: float, ways: list[Callable[[Cachetronaut, Profile], Any]]) -> list[str]:
        """Do it all for so long; what was wrong."""
        work: list[Callable[[], None]] = [lambda me=me: self.write(me) for me in range(WRITERS)]
        work.append(lambda: self.switch_all_the_time(ways))

        def guarded(one: Callable[[], None]) -> None:
            try:
                one()
            except Exception as error:
                self.problems.append(repr(error))
                self.over.set()

        threads = [threading.Thread(target=guarded, args=[one]) for one in work]
        interval = sys.getswitchinterval()
        sys.setswitchinterval(1e-5)
        try:
            for thread in threads:
                thread.start()
            self.over.wait(seconds)
            while min(self.certain, len(self.history)) < ENOUGH and not self.over.wait(0.01):
                pass  # A busy machine takes longer.
            self.over.set()
            for thread in threads:
                thread.join()
        finally:
            sys.setswitchinterval(interval)
        self.check_index()
        return self.problems

    def check_index(self) -> None:
        """Compare the index of tags with the tags of the rows."""
        for profile in PROFILES:
            indexed = set(self.cache.store.get_keys_by_tags(profile.tags, exact_match=True))
            tagged = {meta.key for meta in self.cache.store_metadata() if meta.tags == profile.tags}
            mine = {key for key in indexed ^ tagged if key.startswith(self.prefix)}
            if mine:
                self.problems.append(f"not as in the index: {mine}")


@pytest.mark.parametrize("where", ["file", ":memory:"])
def test_every_write_has_the_profile_that_was_active(
    open_cache: Callable[..., Cachetronaut], db_path: Path, where: str
) -> None:
    load = Load(open_cache(db_path if where == "file" else where))
    assert load.run(SECONDS if where == "file" else SECONDS / 3, [*SWITCHES.values()]) == []
    assert load.cache.stats()["errors"] == 0


@pytest.mark.parametrize("how", [*SWITCHES, "in place"])
def test_each_way_to_switch(open_cache: Callable[..., Cachetronaut], how: str) -> None:
    load = Load(open_cache())
    assert load.run(SECONDS / 5, [SWITCHES.get(how, in_place)]) == []


PROCESS = """
import json, sys
sys.path.insert(0, sys.argv[1])
from cachetronomy import Cachetronaut
from cachetronomy._core import ManualClock
import test_switching as test
with Cachetronaut(sys.argv[2], _clock=ManualClock(), busy_timeout=30) as cache:
    load = test.Load(cache, sys.argv[3])
    print("1", flush=True)
    sys.stdin.readline()
    problems = load.run(test.SECONDS, [*test.SWITCHES.values()])
    print(json.dumps([problems, cache.stats()["errors"], cache.check()]), flush=True)
"""


def test_each_process_switches_for_itself(child: Callable[..., Child], db_path: Path) -> None:
    processes = [child(PROCESS, Path(__file__).parent, db_path, f"{name} ") for name in "ab"]
    for process in processes:
        process.hear()
    for process in processes:
        process.tell("go")
    for process in processes:
        assert process.hear() == [[], 0, []]
        assert process.end() == 0


class StaleLife(Cachetronaut):
    """Writes with the time to live of the profile that it had before."""

    last: int | None = None

    def set(self, key: str, value: object, *args: Any, **options: Any) -> None:
        if not args and not options:
            options["ttl"] = self.last or self.time_to_live
            self.last = self.time_to_live
        super().set(key, value, *args, **options)


class StaleTags(Cachetronaut):
    """Writes with the tags of the profile that it began with."""

    first: list[str] | None = None

    def set_many(self, items: Any, *args: Any, **options: Any) -> None:
        self.first = self.first or self.tags
        super().set_many(items, *args, tags=self.first, **options)


class Late(Cachetronaut):
    """Switches to what it was told the time before."""

    told: Profile | None = None

    def set_profile(self, profile: Any) -> Profile:
        told, self.told = self.told, profile
        return super().set_profile(told or profile)


class Full(Cachetronaut):
    """Has one entry more in memory than it may."""

    def memory_keys(self) -> list[str]:
        return [str(number) for number in range((self.max_items_in_memory or 0) + 1)]


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (StaleLife, "was written while"),
        (StaleTags, "was written while"),
        (Late, "was written while"),
        (Full, "entries are in memory"),
    ],
)
def test_the_checks_see_what_is_stale(kind: type[Cachetronaut], words: str) -> None:
    with kind(":memory:", _clock=ManualClock()) as cache:
        problems = Load(cache).run(0.2, [SWITCHES["set"]])
        assert [problem for problem in problems if words in problem]
        assert all(words in problem or kind is Late for problem in problems)
