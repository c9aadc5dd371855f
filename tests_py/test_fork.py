"""Forked children use the cache of their parent, as `multiprocessing` makes them on Linux."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from cachetronomy import Cachetronaut

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from subprocess import CompletedProcess

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")

PRELUDE = """
import os, sys, threading, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # Of forks beside threads, from 3.12 on.
from cachetronomy import Cachetronaut
cache = Cachetronaut(sys.argv[1])
private = Cachetronaut(":memory:")
@cache
def square(number):
    return number * number

def in_child(work):
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return child

def wait(*children):
    for child in children:
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
"""


def test_parent_and_child_see_each_others_writes(
    db_path: Path, run_python: Callable[..., CompletedProcess[str]]
) -> None:
    code = """
cache.set("before", 1)
private.set("own", 1)
square(3)
for step in range(20):
    def child():
        assert cache.get("before") == 1
        assert cache.get("step") == (step - 1 if step else None)
        assert square(3) == 9
        cache.set("step", step)
        assert cache.get("step") == step
        assert cache.check() == []
    assert cache.get("before") == 1
    wait(in_child(child))
    assert cache.get("step") == step
assert private.get("own") == 1
cache.close()
"""
    assert run_python(PRELUDE + code, db_path).stderr == ""
    with Cachetronaut(db_path) as cache:
        assert cache.get("step") == 19
        assert cache.check() == []


def test_children_that_write_at_once_lose_nothing(
    db_path: Path, run_python: Callable[..., CompletedProcess[str]]
) -> None:
    code = """
def child(name):
    for number in range(100):
        cache.set(f"{name}-{number}", number)
        assert cache.get(f"{name}-{number}") == number
wait(*[in_child(lambda name=name: child(name)) for name in "abcd"])
assert len(cache.all_keys()) == 400
"""
    run_python(PRELUDE + code, db_path)
    with Cachetronaut(db_path) as cache:
        assert len(cache.all_keys()) == 400


def test_a_fork_beside_busy_threads_hangs_nobody(
    db_path: Path, run_python: Callable[..., CompletedProcess[str]]
) -> None:
    code = """
stop = threading.Event()
errors = []
def work(name):
    number = 0
    try:
        while not stop.is_set():
            cache.set(f"{name}{number % 5}", number)
            cache.get_many([f"{name}{n}" for n in range(5)])
            assert cache.get(f"{name}{number % 5}") == number
            number += 1
    except BaseException as error:
        errors.append(error)
threads = [threading.Thread(target=work, args=[name]) for name in "abc"]
for thread in threads:
    thread.start()
def child():
    cache.set("child", os.getpid())
    assert cache.get("child") == os.getpid()
for _ in range(50):
    wait(in_child(child))
stop.set()
for thread in threads:
    thread.join()
assert errors == [], errors
"""
    assert run_python(PRELUDE + code, db_path).stderr == ""
    with Cachetronaut(db_path) as cache:
        assert cache.check() == []


def test_a_pool_of_processes_shares_results(
    db_path: Path, run_python: Callable[..., CompletedProcess[str]]
) -> None:
    code = """
import multiprocessing
with multiprocessing.get_context("fork").Pool(3) as pool:
    assert pool.map(square, range(50)) == [n * n for n in range(50)]
    assert pool.map(square, range(50)) == [n * n for n in range(50)]
assert len(cache.all_keys()) == 50
assert [square(n) for n in range(50)] == [n * n for n in range(50)]
assert cache.stats()["misses"] == 0
"""
    assert run_python(PRELUDE + code, db_path).stderr == ""


def test_a_client_of_another_thread_does_not_hang_the_child(
    db_path: Path, run_python: Callable[..., CompletedProcess[str]]
) -> None:
    # The child drops what the threads that it has not got kept for themselves, before any hook.
    code = """
local, ready, go = threading.local(), threading.Event(), threading.Event()
class Noisy:
    def __del__(self):
        cache.set("dropped", 1)
def work():
    local.client = Cachetronaut(sys.argv[1])
    local.client.set("theirs", 1)
    local.noisy = Noisy()
    ready.set()
    go.wait()
thread = threading.Thread(target=work)
thread.start()
ready.wait()
def child():
    assert cache.get("theirs") == 1
    assert cache.get("dropped") == 1
    cache.set("child", 1)
wait(in_child(child))
go.set()
thread.join()
assert cache.get("child") == 1
"""
    run_python(PRELUDE + code, db_path)


def test_destructors_that_a_close_runs_may_wait_for_a_fork_and_fork(
    db_path: Path, tmp_path: Path, run_python: Callable[..., CompletedProcess[str]]
) -> None:
    code = """
from dataclasses import dataclass
@dataclass
class Value:
    number: int
    forks: bool = False
    def __del__(self):
        if live:
            private.set("seen", self.number)
            cache.set("seen", self.number)
            Cachetronaut(":memory:").set("seen", 1)
            if self.forks:
                wait(in_child(lambda: cache.get("seen")))
live = False
for forks in (False, True):
    other = Cachetronaut(sys.argv[2])
    other.set_many({str(n): Value(n, forks and n == 7) for n in range(30)})
    live = True
    closing = threading.Thread(target=other.close)
    closing.start()
    wait(in_child(lambda: cache.get("seen")))
    closing.join()
    live = False
"""
    run_python(PRELUDE + code, db_path, tmp_path / "other.db")


@pytest.mark.parametrize("when", ["before", "after_in_parent", "after_in_child"])
def test_hooks_of_others_around_ours_are_served_or_refused(
    db_path: Path, run_python: Callable[..., CompletedProcess[str]], when: str
) -> None:
    code = """
import os, sys
from cachetronomy import CachetronomyError
seen = []
def hook():
    try:
        seen.append(cache.get("x"))
    except CachetronomyError as refused:
        seen.append(refused)
os.register_at_fork(**{sys.argv[2]: hook})
"""
    end = """
cache.set("x", 1)
def child():
    assert cache.get("x") == 1
    assert sys.argv[2] != "after_in_child" or seen == [1], seen
wait(in_child(child))
assert len(seen) == (sys.argv[2] != "after_in_child")
assert cache.get("x") == 1
"""
    run_python(code + PRELUDE + end, db_path, when)


def test_a_child_does_not_wait_for_a_computation_of_its_parent(
    db_path: Path, run_python: Callable[..., CompletedProcess[str]]
) -> None:
    code = """
started, go = threading.Event(), threading.Event()
@cache
def slow(number):
    started.set()
    go.wait(10)
    return number
threads = [threading.Thread(target=slow, args=[1]) for _ in range(2)]
for thread in threads:
    thread.start()
started.wait()
def child():
    go.set()
    assert slow(1) == 1
wait(in_child(child))
go.set()
for thread in threads:
    thread.join()
assert slow(1) == 1
"""
    run_python(PRELUDE + code, db_path)
