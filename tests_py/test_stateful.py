"""Any sequence of operations does what it would do to a dict with deadlines, versions and tags."""

from __future__ import annotations

import math
import shutil
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from cachetronomy import MISS, Cachetronaut
from cachetronomy._core import ManualClock
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

KEYS = st.sampled_from([f"k{number}" for number in range(6)])
SEVERAL_KEYS = st.lists(KEYS, max_size=4)
TAGS = st.lists(st.sampled_from("abc"), max_size=3)
VALUES = st.one_of(
    st.none(), st.integers(), st.text(max_size=5), st.binary(max_size=5), st.tuples(st.integers())
)
# Whole seconds, so that the model's sums are exact.
LIVES = st.sampled_from([None, 1, 2, 5, 60, 0, math.inf])
VERSIONS = st.sampled_from([None, 1, 2])


class Entry(NamedTuple):
    """What the model knows of a key."""

    value: Any
    deadline: float
    version: int
    tags: frozenset[str]


class CacheMachine(RuleBasedStateMachine):
    """Two clients on one file, and the model."""

    def __init__(self) -> None:
        """Begin with no client."""
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="cachetronomy-"))
        self.clock = ManualClock()
        self.now = 0
        self.model: dict[str, Entry] = {}
        self.items: int | None = None
        self.clients: list[Cachetronaut] = []

    def open(self) -> Cachetronaut:
        """Open one more client."""
        path = self.folder / "cache.db"
        return Cachetronaut(path, max_items_in_memory=self.items, _clock=self.clock)

    @initialize(items=st.sampled_from([0, 1, 3, 100, None]))
    def begin(self, items: int | None) -> None:
        self.items = items
        self.clients = [self.open(), self.open()]

    def live(self) -> dict[str, Entry]:
        """Return the entries that have not ended."""
        return {key: entry for key, entry in self.model.items() if entry.deadline > self.now}

    def put(
        self, keys: dict[str, Any], life: float | None, version: int | None, tags: list[str]
    ) -> None:
        """Book what was set."""
        for key, value in keys.items():
            if life == 0:
                self.model.pop(key, None)
            else:
                deadline = self.now + (3_600 if life is None else life)
                self.model[key] = Entry(value, deadline, version or 1, frozenset(tags))

    @rule(who=st.booleans(), key=KEYS, value=VALUES, life=LIVES, version=VERSIONS, tags=TAGS)
    def set(
        self,
        who: bool,
        key: str,
        value: object,
        life: float | None,
        version: int | None,
        tags: list[str],
    ) -> None:
        assert self.clients[who].set(key, value, life, version, tags) is None
        self.put({key: value}, life, version, tags)

    @rule(who=st.booleans(), items=st.dictionaries(KEYS, VALUES), life=LIVES, tags=TAGS)
    def set_many(
        self, who: bool, items: dict[str, Any], life: float | None, tags: list[str]
    ) -> None:
        self.clients[who].set_many(items, ttl=life, tags=tags)
        self.put(items, life, None, tags)

    @rule(who=st.booleans(), key=KEYS, version=VERSIONS, promote=st.booleans())
    def get(self, who: bool, key: str, version: int | None, promote: bool) -> None:
        entry = self.live().get(key)
        found = self.clients[who].get(key, promote=promote, default=MISS, version=version)
        if entry is None or (version is not None and version != entry.version):
            assert found is MISS
        else:
            assert found == entry.value
            assert type(found) is type(entry.value)

    @rule(who=st.booleans(), keys=SEVERAL_KEYS)
    def get_many(self, who: bool, keys: list[str]) -> None:
        wanted = {key: entry.value for key, entry in self.live().items() if key in keys}
        assert self.clients[who].get_many(keys) == wanted

    @rule(who=st.booleans(), key=KEYS)
    def delete(self, who: bool, key: str) -> None:
        assert self.clients[who].delete(key) is (key in self.live())
        self.model.pop(key, None)

    @rule(who=st.booleans(), keys=SEVERAL_KEYS)
    def delete_many(self, who: bool, keys: list[str]) -> None:
        assert self.clients[who].delete_many(keys) == len(set(keys) & set(self.live()))
        for key in keys:
            self.model.pop(key, None)

    @rule(who=st.booleans(), tags=TAGS, exact=st.booleans())
    def clear_by_tags(self, who: bool, tags: list[str], exact: bool) -> None:
        wanted = frozenset(tags)
        matching = {
            key
            for key, entry in self.model.items()
            if (entry.tags == wanted if exact else entry.tags & wanted)
        }
        removed = self.clients[who].clear_by_tags(tags, exact_match=exact)
        assert sorted(removed) == sorted(matching & set(self.live()))
        for key in matching:
            del self.model[key]

    @rule(who=st.booleans())
    def clear_expired(self, who: bool) -> None:
        live = self.live()
        removed = self.clients[who].clear_expired()
        assert sorted(entry.key for entry in removed) == sorted(set(self.model) - set(live))
        self.model = live

    @precondition(lambda self: len(self.model) > 3)
    @rule(who=st.booleans())
    def clear_all(self, who: bool) -> None:
        self.clients[who].clear_all()
        self.model.clear()

    @rule(who=st.booleans(), key=KEYS)
    def evict(self, who: bool, key: str) -> None:
        self.clients[who].evict(key)
        assert key not in self.clients[who].memory_keys()

    @rule(who=st.booleans())
    def evict_all(self, who: bool) -> None:
        self.clients[who].evict_all()
        assert self.clients[who].memory_keys() == []

    @rule(seconds=st.sampled_from([1, 2, 5, 60, 3_600]))
    def advance(self, seconds: int) -> None:
        self.clock.advance(seconds)
        self.now += seconds

    @rule(who=st.booleans())
    def reopen(self, who: bool) -> None:
        self.clients[who].close()
        self.clients[who] = self.open()
        assert self.clients[who].memory_keys() == []

    @rule()
    def reopen_both(self) -> None:
        for client in self.clients:
            client.close()
        self.clients = [self.open(), self.open()]

    @invariant()
    def all_keys_are_those_of_the_model(self) -> None:
        for client in self.clients:
            live = set(self.live())
            stored, in_memory = client.store_keys(), client.memory_keys()
            assert sorted(stored) == sorted(live)
            assert sorted(client.all_keys()) == sorted(live)
            assert set(in_memory) <= live
            assert len(in_memory) == len(set(in_memory))
            assert self.items is None or len(in_memory) <= self.items

    def teardown(self) -> None:
        for client in self.clients:
            assert client.check() == []
            client.close()
        shutil.rmtree(self.folder)


class PrivateMachine(CacheMachine):
    """The same with one private store."""

    def open(self) -> Cachetronaut:
        """Open a private store, or take the one there is."""
        return Cachetronaut(":memory:", max_items_in_memory=self.items, _clock=self.clock)

    def begin(self, items: int | None) -> None:
        """Let both hands hold one client."""
        self.items = items
        self.clients = [self.open()] * 2

    begin = initialize(items=st.sampled_from([0, 1, 3, 100, None]))(begin)

    @rule(who=st.booleans())
    def reopen(self, who: bool) -> None:
        self.clients[who].close()
        self.clients = [self.open()] * 2
        self.model.clear()

    @rule()
    def reopen_both(self) -> None:
        self.reopen(False)

    def teardown(self) -> None:
        if self.clients:
            assert self.clients[0].check() == []
            self.clients[0].close()
        shutil.rmtree(self.folder)


SETTINGS = settings(
    max_examples=40,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
TestFile = CacheMachine.TestCase
TestFile.settings = SETTINGS
TestPrivate = PrivateMachine.TestCase
TestPrivate.settings = SETTINGS
