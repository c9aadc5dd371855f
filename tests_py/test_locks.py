"""Locks between threads and processes: one inside at a time, whatever becomes of the holder."""

from __future__ import annotations

import contextlib
import faulthandler
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
from cachetronomy import (
    CacheClosedError,
    Cachetronaut,
    CachetronomyError,
    InvalidKeyError,
    InvalidSettingError,
    StoreBusyError,
)
from cachetronomy._core import ManualClock
from conftest import Child

pytestmark = pytest.mark.both_clients


@pytest.fixture(autouse=True)
def no_deadlock() -> Iterator[None]:
    """End the process with every thread's traceback, should a test hang with the lock held."""
    faulthandler.dump_traceback_later(55, exit=True, file=sys.__stderr__)
    yield
    faulthandler.cancel_dump_traceback_later()


def is_free(cache: Cachetronaut, name: str) -> bool:
    """Try once."""
    try:
        with cache.lock(name, timeout=0):
            return True
    except StoreBusyError:
        return False


class Room:
    """What a lock guards: it notices company."""

    def __init__(self) -> None:
        """Begin empty."""
        self.inside = 0
        self.crowded = False
        self.visits = 0

    def visit(self) -> None:
        """Stay for long enough to meet others."""
        self.inside += 1
        self.crowded |= self.inside > 1
        time.sleep(0.001)
        self.inside -= 1
        self.visits += 1


@pytest.mark.parametrize("locked", [True, False])
@pytest.mark.parametrize("shared", [True, False])
def test_one_thread_at_a_time_is_inside(anywhere: Cachetronaut, locked: bool, shared: bool) -> None:
    room, one = Room(), anywhere.lock("room")

    def work() -> None:
        for _ in range(20):
            lock = one if shared else anywhere.lock("room")
            with lock if locked else contextlib.nullcontext():
                room.visit()

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert room.crowded is not locked
    assert not locked or room.visits == 120
    assert is_free(anywhere, "room")


WORKER = """
import contextlib, json, sys, threading, time
from cachetronomy import Cachetronaut
cache = Cachetronaut(sys.argv[1])
def work(rounds):
    for _ in range(rounds):
        with cache.lock("n") if sys.argv[2] == "lock" else contextlib.nullcontext():
            value = cache.get("n", default=0)
            time.sleep(0.0005)
            cache.set("n", value + 1)
for line in sys.stdin:
    workers = [threading.Thread(target=work, args=json.loads(line)) for _ in range(2)]
    for worker in workers: worker.start()
    for worker in workers: worker.join()
    print("1", flush=True)
"""


@pytest.mark.parametrize("guard", ["lock", "none"])
def test_one_process_at_a_time_is_inside(
    child: Callable[..., Child], db_path: Path, guard: str
) -> None:
    workers = [child(WORKER, db_path, guard) for _ in range(3)]
    with Cachetronaut(db_path) as cache:
        for worker in workers:
            worker.tell(30)
        for worker in workers:
            worker.hear()
        assert (cache.get("n") == 3 * 2 * 30) is (guard == "lock")
        assert cache.check() == []


def test_a_lock_that_is_taken_raises_when_the_time_is_over(anywhere: Cachetronaut) -> None:
    lock = anywhere.lock("a name")
    with lock as same:
        assert same is lock
        for timeout in (0, 0.05, timedelta(milliseconds=5)):
            # Not re-entrant: this very thread waits for itself.
            with (
                pytest.raises(StoreBusyError, match="a name"),
                anywhere.lock("a name", timeout=timeout),
            ):
                pass
        assert is_free(anywhere, "another name")
    assert is_free(anywhere, "a name")
    with lock:
        assert not is_free(anywhere, "a name")


def test_a_lock_is_free_after_an_exception(anywhere: Cachetronaut) -> None:
    with pytest.raises(ZeroDivisionError), anywhere.lock("room"):
        raise ZeroDivisionError
    assert is_free(anywhere, "room")


def test_private_stores_and_other_files_have_locks_of_their_own(
    open_cache: Callable[..., Cachetronaut], tmp_path: Path
) -> None:
    paths = [":memory:", ":memory:", tmp_path / "a.db", tmp_path / "b.db"]
    with contextlib.ExitStack() as stack:
        for path in paths:
            stack.enter_context(open_cache(path).lock("room", timeout=0))


def test_two_clients_of_one_file_share_a_lock(open_cache: Callable[..., Cachetronaut]) -> None:
    one, other = open_cache(), open_cache()
    with one.lock("room"):
        assert not is_free(other, "room")
    assert is_free(other, "room")


@pytest.mark.parametrize("shared", [True, False])
def test_a_lock_is_free_after_its_time_and_the_late_holder_is_told(
    anywhere: Cachetronaut,
    clock: ManualClock,
    caplog: pytest.LogCaptureFixture,
    shared: bool,
) -> None:
    one = anywhere.lock("room", ttl=5, timeout=0)
    other = one if shared else anywhere.lock("room", time_to_live="5s", timeout=0)
    entered, leave = threading.Event(), threading.Event()

    def take_over() -> None:
        with other:
            entered.set()
            leave.wait()

    thread = threading.Thread(target=take_over)
    with one:
        clock.advance(4.999)
        assert not is_free(anywhere, "room")
        clock.advance(0.001)
        thread.start()
        assert entered.wait(30)
        assert caplog.messages == []
    # The late holder has not let the other one's lock go.
    assert not is_free(anywhere, "room")
    (message,) = caplog.messages
    assert "room" in message
    assert "ttl" in message
    leave.set()
    thread.join()
    assert is_free(anywhere, "room")
    assert caplog.messages == [message]


def test_what_nobody_took_over_is_late_all_the_same(
    anywhere: Cachetronaut, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    with anywhere.lock("room", ttl=5):
        clock.advance(5)
    assert len(caplog.messages) == 1
    assert is_free(anywhere, "room")


HOLDER = """
import json, sys
from cachetronomy import Cachetronaut
cache = Cachetronaut(sys.argv[1])
for line in sys.stdin:
    with cache.lock("room", ttl=json.loads(line)[0]):
        print("1", flush=True)
        sys.stdin.readline()
"""


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL")
def test_a_killed_holder_blocks_nobody_for_longer_than_its_time(
    child: Callable[..., Child],
    cache: Cachetronaut,
    clock: ManualClock,
    db_path: Path,
    query: Callable[..., Any],
) -> None:
    holder = child(HOLDER, db_path)
    holder.ask(300)
    holder.process.send_signal(signal.SIGKILL)
    assert holder.process.wait(30) == -signal.SIGKILL
    assert not is_free(cache, "room")
    clock.advance(300)  # It stood still while the holder's own clock went on.
    clock.advance(50)
    cache.clear_expired()
    assert query(db_path, "SELECT * FROM lease") == []
    assert is_free(cache, "room")


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL")
def test_who_waits_for_a_killed_holder_goes_on_by_itself(
    child: Callable[..., Child], db_path: Path
) -> None:
    with Cachetronaut(db_path) as cache:
        for _ in range(3):
            holder = child(HOLDER, db_path)
            holder.ask(0.7)
            start = time.monotonic()
            holder.process.send_signal(signal.SIGKILL)
            with cache.lock("room"):
                waited = time.monotonic() - start
            assert waited < 0.7 + 5


def test_who_waits_is_let_in_when_another_process_leaves(
    child: Callable[..., Child], db_path: Path
) -> None:
    holder = child(HOLDER, db_path)
    with Cachetronaut(db_path) as cache:
        for _ in range(5):
            holder.ask(300)
            holder.tell("leave")
            with cache.lock("room", timeout=30):
                pass


def test_a_thread_that_waits_holds_nothing_that_others_need(
    anywhere: Cachetronaut, run_python: Callable[..., CompletedProcess[str]]
) -> None:
    path = anywhere.db_path
    write = "import sys; from cachetronomy import Cachetronaut; "
    write += "Cachetronaut(sys.argv[1]).set('theirs', 1)"
    done: list[str] = []

    def wait() -> None:
        with anywhere.lock("room"):
            done.append("inside")

    thread = threading.Thread(target=wait)
    with anywhere.lock("room"):
        thread.start()
        for step in range(200):
            anywhere.set("ours", step)
            assert anywhere.get("ours") == step
        if path != ":memory:":
            run_python(write, path)
            assert anywhere.get("theirs") == 1
        assert done == []
    thread.join(30)
    assert done == ["inside"]


def test_waiting_ends_with_the_client(anywhere: Cachetronaut) -> None:
    errors: list[BaseException] = []

    def wait() -> None:
        try:
            with anywhere.lock("room"):
                pass
        except CacheClosedError as error:
            errors.append(error)

    thread = threading.Thread(target=wait)
    anywhere.lock("room").__enter__()
    thread.start()
    thread.join(0.05)
    assert thread.is_alive()
    anywhere.close()
    thread.join(30)
    assert len(errors) == 1


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timers on this system")
def test_control_c_ends_the_wait(
    db_path: Path, run_python: Callable[..., CompletedProcess[str]]
) -> None:
    code = """
import signal, sys
from cachetronomy import Cachetronaut
cache = Cachetronaut(sys.argv[1])
signal.signal(signal.SIGALRM, signal.default_int_handler)
with cache.lock("room"):
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    try:
        with cache.lock("room"):
            print("inside")
    except KeyboardInterrupt:
        print("interrupted")
with cache.lock("room", timeout=0):
    print("free")
"""
    assert run_python(code, db_path).stdout.split() == ["interrupted", "free"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_child_lets_nothing_go_that_its_parent_holds(
    db_path: Path, run_python: Callable[..., CompletedProcess[str]]
) -> None:
    code = """
import os, sys, threading, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # Of forks beside threads, from 3.12 on.
from cachetronomy import Cachetronaut, StoreBusyError
cache = Cachetronaut(sys.argv[1])
def busy():
    try:
        with cache.lock("room", timeout=0):
            return False
    except StoreBusyError:
        return True
def wait():
    with cache.lock("room"):
        pass
with cache.lock("room"):
    thread = threading.Thread(target=wait)  # One that waits must not keep the fork waiting.
    thread.start()
    for _ in range(20):
        child = os.fork()
        if child == 0:
            break
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    if child == 0:
        with cache.lock("own", timeout=0):
            pass
        assert busy()
if child == 0:
    # It has left the block, which was never its own.
    os._exit(0 if busy() else 1)
thread.join()
assert not busy()
"""
    assert run_python(code, db_path).stderr == ""


@pytest.mark.parametrize("ttl", [0, -1, math.nan, math.inf, "x", [1]])
def test_a_time_to_live_that_a_lock_cannot_have_is_refused(
    anywhere: Cachetronaut, ttl: Any
) -> None:
    with pytest.raises(InvalidSettingError):
        anywhere.lock("room", ttl)


@pytest.mark.parametrize("timeout", [-1, math.nan, True, "5", [1], timedelta(seconds=-1)])
def test_a_timeout_that_is_none_is_refused(anywhere: Cachetronaut, timeout: Any) -> None:
    with pytest.raises(InvalidSettingError, match="timeout"):
        anywhere.lock("room", timeout=timeout)


def test_other_bad_input_is_refused(anywhere: Cachetronaut) -> None:
    with pytest.raises(InvalidKeyError):
        anywhere.lock(5)
    with pytest.raises(TypeError):
        anywhere.lock("room", 1, time_to_live=1)
    with pytest.raises(CachetronomyError, match="not held"):
        anywhere.lock("room").__exit__(None, None, None)
    with anywhere.lock("", timeout=math.inf, ttl=timedelta(seconds=5)):
        assert not is_free(anywhere, "")
