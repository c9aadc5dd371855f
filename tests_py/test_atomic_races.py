"""Operations in one step, by many threads and processes at once: beside the same in two steps."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cachetronomy import Cachetronaut
from conftest import Child

# A harness that gains from more time: the full number is 5,000.
ROUNDS = int(os.environ.get("CACHETRONOMY_INCR_ROUNDS", "250"))

# What the operations are beside: the same in two steps, which others come between. Each stress test
# has to find that out of the latter.
WORKER = """
import json, sys, threading, time
from cachetronomy import Cachetronaut
cache = Cachetronaut(sys.argv[1])
def incr(key):
    value = cache.get(key, default=0)
    time.sleep(0.0001)
    cache.set(key, value + 1)
def add(key, value):
    if key in cache:
        return False
    time.sleep(0.001)
    cache.set(key, value)
    return True
def pop(key):
    value = cache.get(key)
    time.sleep(0.001)
    cache.delete(key)
    return value
acts = {
    "whole": {"incr": cache.incr, "add": cache.add, "pop": cache.pop},
    "in two steps": {"incr": incr, "add": add, "pop": pop},
}[sys.argv[2]]
def count(threads, rounds):
    def work():
        for _ in range(rounds):
            acts["incr"]("n")
    workers = [threading.Thread(target=work) for _ in range(threads)]
    for worker in workers: worker.start()
    for worker in workers: worker.join()
def race(keys):
    return [number for number in range(keys) if acts["add"](f"k{number}", number)]
def take(keys):
    return [number for number in range(keys) if acts["pop"](f"k{number}") is not None]
for line in sys.stdin:
    name, *args = json.loads(line)
    print(json.dumps({"count": count, "race": race, "take": take}[name](*args)), flush=True)
"""


def together(workers: list[Child], *command: object) -> list[Any]:
    """Have all do the same at once."""
    for worker in workers:
        worker.tell(*command)
    return [worker.hear() for worker in workers]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("way", ["whole", "in two steps"])
def test_no_count_is_lost_between_processes_and_threads(
    child: Callable[..., Child], db_path: Path, way: str
) -> None:
    rounds = ROUNDS if way == "whole" else 50
    workers = [child(WORKER, db_path, way) for _ in range(4)]
    with Cachetronaut(db_path) as cache:
        together(workers, "count", 4, rounds)
        assert (cache.get("n") == 4 * 4 * rounds) is (way == "whole")
        assert cache.check() == []


@pytest.mark.parametrize("way", ["whole", "in two steps"])
def test_of_racing_processes_one_adds_and_one_pops(
    child: Callable[..., Child], db_path: Path, way: str
) -> None:
    workers = [child(WORKER, db_path, way) for _ in range(2)]
    for command in ("race", "take"):
        won = [number for found in together(workers, command, 400) for number in found]
        assert set(won) == set(range(400))
        assert (len(won) == 400) is (way == "whole"), command


@pytest.mark.parametrize("way", ["whole", "in two steps"])
def test_no_count_is_lost_between_threads(anywhere: Cachetronaut, way: str) -> None:
    def in_two_steps() -> None:
        value = anywhere.get("n", default=0)
        time.sleep(0.0001)
        anywhere.set("n", value + 1)

    def work() -> None:
        for _ in range(100):
            if way == "whole":
                anywhere.incr("n")
            else:
                in_two_steps()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (anywhere.get("n") == 800) is (way == "whole")


def test_a_reader_of_another_process_sees_each_step_at_once(
    child: Callable[..., Child], db_path: Path
) -> None:
    code = """
import json, sys
from cachetronomy import Cachetronaut
cache = Cachetronaut(sys.argv[1])
for line in sys.stdin:
    name, *args = json.loads(line)
    print(json.dumps(getattr(cache, name)(*args)), flush=True)
"""
    other = child(code, db_path)
    with Cachetronaut(db_path) as cache:
        for step in range(0, 200, 2):
            assert cache.incr("n") == step + 1
            assert other.ask("get", "n") == step + 1
            assert other.ask("incr", "n") == step + 2
            assert cache.get("n") == step + 2
        assert other.ask("touch", "n", 5000) is True
        assert cache.ttl("n") > 4000
        assert other.ask("pop", "n") == 200
        assert cache.get("n") is None
        assert cache.add("n", "mine") is True
        assert other.ask("add", "n", "theirs") is False
        assert other.ask("delete_match", "?") == 1
        assert cache.get("n") is None
