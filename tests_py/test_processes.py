"""Processes that share a file: no read is stale, and a kill loses nothing acknowledged."""

from __future__ import annotations

import os
import random
import signal
from typing import TYPE_CHECKING, Any

import pytest
from cachetronomy import Cachetronaut

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from conftest import Child

OURS = """
import json, sys
from cachetronomy import Cachetronaut
cache = Cachetronaut(sys.argv[1], max_items_in_memory=None)
acts = {
    "get": lambda key: cache.get(key),
    "get_many": lambda keys: cache.get_many(keys),
    "keys": lambda: sorted(cache.all_keys()),
    "memory_keys": lambda: sorted(cache.memory_keys()),
    "set": lambda key, value, tags: cache.set(key, value, tags=tags),
    "set_many": lambda items, tags: cache.set_many(items, tags=tags),
    "delete": lambda key: cache.delete(key),
    "clear": lambda: cache.clear_all(),
    "clear_tag": lambda tag: sorted(cache.clear_by_tags(tag)),
    "check": lambda: cache.check(),
}
for line in sys.stdin:
    name, *args = json.loads(line)
    print(json.dumps(acts[name](*args)), flush=True)
"""

STRANGER = """
import json, sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=30)
def put(key, value, tags):
    row = (key, json.dumps(value), "json", "9999-01-01T00:00:00+00:00", json.dumps(tags), 1, "x")
    connection.execute(
        "INSERT OR REPLACE INTO cache(key, data, fmt, expire_at, tags, version, saved_by_profile)"
        " VALUES (?, ?, ?, ?, ?, ?, ?)", row)
def put_all(items, tags):
    connection.execute("BEGIN IMMEDIATE")
    for key, value in items.items():
        put(key, value, tags)
    connection.execute("COMMIT")
def delete(key):
    return connection.execute("DELETE FROM cache WHERE key = ?", [key]).rowcount == 1
def clear():
    connection.execute("DELETE FROM cache")
acts = {"set": put, "set_many": put_all, "delete": delete, "clear": clear}
for line in sys.stdin:
    name, *args = json.loads(line)
    print(json.dumps(acts[name](*args)), flush=True)
"""


class Peers:
    """Several processes on one file, and what they must all see."""

    def __init__(self, child: Callable[..., Child], db_path: Path) -> None:
        """Start them."""
        self.ours = [child(OURS, db_path) for _ in range(2)]
        assert [one.ask("get", "any") for one in self.ours] == [None, None]
        self.stranger = child(STRANGER, db_path)
        self.entries: dict[str, tuple[int, str]] = {}

    def write(self, dice: random.Random, step: int) -> None:
        """Let one of them change something, and book it when it has returned."""
        writer = dice.choice([*self.ours, self.stranger])
        key, tag = f"k{dice.randrange(8)}", f"t{dice.randrange(3)}"
        kind = dice.choices(
            ["set", "set_many", "delete", "clear", "clear_tag"], [50, 15, 20, 3, 12]
        )[0]
        if kind == "set":
            writer.ask("set", key, step, [tag])
            self.entries[key] = (step, tag)
        elif kind == "set_many":
            items = {f"k{number}": step for number in dice.sample(range(8), 3)}
            writer.ask("set_many", items, [tag])
            self.entries.update(dict.fromkeys(items, (step, tag)))
        elif kind == "delete":
            assert writer.ask("delete", key) is (key in self.entries)
            self.entries.pop(key, None)
        elif kind == "clear":
            writer.ask("clear")
            self.entries.clear()
        else:
            removed = [key for key, entry in self.entries.items() if entry[1] == tag]
            assert self.ours[0].ask("clear_tag", tag) == sorted(removed)
            for gone in removed:
                del self.entries[gone]

    def read(self, dice: random.Random) -> None:
        """Let each of ours read; all must see what was booked."""
        wanted = {key: entry[0] for key, entry in self.entries.items()}
        for reader in self.ours:
            key = f"k{dice.randrange(8)}"
            assert reader.ask("get", key) == wanted.get(key), key
            if dice.random() < 0.2:
                assert reader.ask("get_many", [f"k{n}" for n in range(8)]) == wanted
            if dice.random() < 0.1:
                assert reader.ask("keys") == sorted(wanted)
                assert set(reader.ask("memory_keys")) <= set(wanted)


@pytest.mark.parametrize("seed", range(3))
def test_a_read_sees_every_change_that_returned_before_it_began(
    child: Callable[..., Child], db_path: Path, seed: int
) -> None:
    peers, dice = Peers(child, db_path), random.Random(seed)
    for step in range(400):
        peers.write(dice, step)
        peers.read(dice)
    for one in peers.ours:
        assert one.ask("check") == []
        assert one.end() == 0
    with Cachetronaut(db_path) as cache:
        wanted = {key: entry[0] for key, entry in peers.entries.items()}
        assert cache.get_many([f"k{n}" for n in range(8)]) == wanted


def test_this_process_sees_the_changes_of_others_at_once(
    child: Callable[..., Child], db_path: Path
) -> None:
    with Cachetronaut(db_path) as cache:
        other, stranger = child(OURS, db_path), child(STRANGER, db_path)
        for step in range(0, 500, 2):
            cache.set("bystander", step)
            other.ask("set", "key", step, ["t"])
            assert cache.get("key") == cache.get("key") == step
            stranger.ask("set", "key", step + 1, ["u"])
            assert cache.get("key") == step + 1
            assert cache.get("bystander") == step
            if step % 10 == 0:
                assert other.ask("clear_tag", "u") == ["key"]
                assert cache.get("key") is None
                assert cache.memory_keys() == ["bystander"]


TRANSFER = """
import json, random, sys
from cachetronomy import Cachetronaut
cache = Cachetronaut(sys.argv[1])
for line in sys.stdin:
    for number in range(json.loads(line)[0]):
        cache.set_many({"left": number, "right": number})
    print("1", flush=True)
"""


def test_a_reader_never_sees_half_of_a_transaction(
    child: Callable[..., Child], db_path: Path
) -> None:
    with Cachetronaut(db_path, max_items_in_memory=0) as cache:
        cache.set_many({"left": -1, "right": -1})
        writer = child(TRANSFER, db_path)
        writer.tell(2_000)
        for _ in range(2_000):
            both = cache.get_many(["left", "right"])
            assert both["left"] == both["right"]
        writer.hear()
        assert cache.get_many(["left", "right"]) == {"left": 1_999, "right": 1_999}


def test_several_processes_make_one_new_file(child: Callable[..., Child], db_path: Path) -> None:
    several = [child(OURS, db_path) for _ in range(6)]
    for number, one in enumerate(several):
        one.tell("set", f"k{number}", 1, [])
    with Cachetronaut(db_path) as cache:
        for one in several:
            assert one.hear() is None
        assert cache.check() == []
        assert sorted(cache.all_keys()) == [f"k{number}" for number in range(6)]


WRITER = """
import sys
from cachetronomy import Cachetronaut
cache = Cachetronaut(sys.argv[1])
number = 0
while True:
    key = f"{sys.argv[2]}-{number % 50}"
    cache.set(key, number, tags=[sys.argv[2]])
    print(number, flush=True)
    number += 1
"""


def check_survivors(cache: Cachetronaut, acknowledged: list[int]) -> None:
    """Find the last fifty writes of each writer."""
    for name, last in zip("ab", acknowledged, strict=True):
        for number in range(max(0, last - 49), last + 1):
            found = cache.get(f"{name}-{number % 50}")
            # One more may be committed whose acknowledgement was not written any more.
            assert found in (number, last + 1), (name, number, last)
    assert cache.check() == []


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL")
@pytest.mark.parametrize("round_", range(4))
def test_a_kill_loses_nothing_acknowledged(
    child: Callable[..., Child], db_path: Path, round_: int
) -> None:
    with Cachetronaut(db_path) as witness:
        writers = [child(WRITER, db_path, name) for name in ("a", "b")]
        acknowledged: list[Any] = []
        for writer in writers:
            for _ in range(100 + 17 * round_):
                writer.hear()
        for writer in writers:
            writer.process.send_signal(signal.SIGKILL)
            assert writer.process.wait(30) == -signal.SIGKILL
            assert writer.process.stdout is not None
            lines = writer.process.stdout.read().split("\n")
            # The last line may be cut short; each whole one is an acknowledgement.
            acknowledged.append(max([int(line) for line in lines[:-1]], default=99 + 17 * round_))
        check_survivors(witness, acknowledged)
    with Cachetronaut(db_path) as later:
        check_survivors(later, acknowledged)
