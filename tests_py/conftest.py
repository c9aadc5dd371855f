"""Fixtures of the suite: a file, clients, a clock turned by hand, child processes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest
from awaited import Awaited
from cachetronomy import AsyncCachetronaut, CacheClosedError, Cachetronaut
from cachetronomy._core import ManualClock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

PATIENCE = 50  # seconds until a child that hangs is given up


def short_id(value: object) -> str:
    """Name a parameter of a test, without the address that a repr may hold."""
    text = ascii(value)
    return type(value).__name__ if " at 0x" in text else text[:40]


def environment() -> dict[str, str]:
    """Take nobody's settings into a child process."""
    return {
        name: value for name, value in os.environ.items() if not name.upper().startswith("CACHE_")
    }


@pytest.fixture(autouse=True)
def _nobodys_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take nobody's settings into the clients of this process either."""
    for name in list(os.environ):
        if name.upper().startswith("CACHE_"):
            monkeypatch.delenv(name)


@pytest.fixture
def db_path(tmp_path: Path) -> Path:
    """Name a file that does not exist yet."""
    return tmp_path / "cache.db"


@pytest.fixture
def clock() -> ManualClock:
    """Make a clock that stands still until a test turns it."""
    return ManualClock()


def pytest_xdist_auto_num_workers() -> int:
    """Run at least three tests at once: many of them wait for processes and leases."""
    return max(3, os.cpu_count() or 1)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run the tests that are marked so with both clients."""
    if "client_kind" in metafunc.fixturenames:
        both = metafunc.definition.get_closest_marker("both_clients")
        only = metafunc.definition.get_closest_marker("sync_only")
        kinds = ["sync", "async"] if both and not only else ["sync"]
        metafunc.parametrize("client_kind", kinds, scope="session")


@pytest.fixture(scope="session")
def event_loop_thread() -> Iterator[asyncio.AbstractEventLoop]:
    """Run an event loop for async clients that are called like sync ones."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="event loop", daemon=True)
    thread.start()
    yield loop
    loop.call_soon_threadsafe(loop.stop)
    thread.join(PATIENCE)
    loop.close()


@pytest.fixture
def open_cache(
    db_path: Path, clock: ManualClock, client_kind: str, request: pytest.FixtureRequest
) -> Iterator[Callable[..., Cachetronaut]]:
    """Open clients on the test's file and clock; at the end each must be sound, and is closed."""
    opened: list[Cachetronaut] = []

    def open_one(path: object = db_path, **settings: Any) -> Cachetronaut:
        settings = {"_clock": clock, **settings}
        client: Any
        if client_kind == "async":
            loop = request.getfixturevalue("event_loop_thread")
            client = Awaited(AsyncCachetronaut(path, **settings), loop)
            client.init_async()
        else:
            client = Cachetronaut(path, **settings)
        opened.append(client)
        return client

    yield open_one
    for client in opened:
        try:
            findings = client.check()
        except CacheClosedError:  # The test itself closed it.
            findings = []
        client.close()
        assert findings == []


@pytest.fixture
def cache(open_cache: Callable[..., Cachetronaut]) -> Cachetronaut:
    """Open a client on the test's file."""
    return open_cache()


@pytest.fixture(params=["file", ":memory:"])
def anywhere(
    request: pytest.FixtureRequest, open_cache: Callable[..., Cachetronaut]
) -> Cachetronaut:
    """Open a client on a file, and one on a private store: the test runs with either."""
    return open_cache() if request.param == "file" else open_cache(":memory:")


class Tier:
    """Where a test reads from; calling it returns the client to read with."""

    def __init__(self, name: str, open_one: Callable[..., Cachetronaut]) -> None:
        """Remember how to open the fresh client."""
        self.name = name
        self.open_one = open_one

    def __call__(self, client: Cachetronaut) -> Cachetronaut:
        """Return a client that will find what `client` wrote in this tier."""
        if self.name == "fresh client":
            return self.open_one()
        if self.name == "store":
            client.evict_all()
        return client


@pytest.fixture(params=["memory", "store", "fresh client"])
def tier(request: pytest.FixtureRequest, open_cache: Callable[..., Cachetronaut]) -> Tier:
    """Run the test thrice: read from memory, from the store after an eviction, by a new client."""
    return Tier(request.param, open_cache)


@pytest.fixture
def run_python(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a program in another process, to its end; it must succeed unless `check=False`."""

    def run(code: str, *args: object, check: bool = True) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", code, *map(str, args)]
        with subprocess.Popen(
            command,
            cwd=tmp_path,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        ) as process:
            try:
                stdout, stderr = process.communicate(timeout=PATIENCE)
            except subprocess.TimeoutExpired:
                if hasattr(os, "killpg"):  # What it has forked hangs too.
                    os.killpg(process.pid, signal.SIGKILL)
                process.kill()
                raise
        done = subprocess.CompletedProcess(command, process.returncode, stdout, stderr)
        assert not check or done.returncode == 0, done.stderr
        return done

    return run


@pytest.fixture
def query(run_python: Callable[..., subprocess.CompletedProcess[str]]) -> Callable[..., Any]:
    """Run SQL on a file through the standard library, in another process; the rows."""
    code = (
        "import json, sqlite3, sys\n"
        "connection = sqlite3.connect(sys.argv[1], timeout=30)\n"
        "rows = connection.execute(sys.argv[2], json.loads(sys.argv[3])).fetchall()\n"
        "connection.commit()\n"
        "print(json.dumps(rows, default=bytes.hex))\n"
    )

    def ask(path: object, sql: str, *values: object) -> Any:
        return json.loads(run_python(code, path, sql, json.dumps(values)).stdout)

    return ask


class Child:
    """A process that answers one line of JSON to each line of JSON."""

    def __init__(self, code: str, *args: object) -> None:
        """Start it."""
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, *map(str, args)],
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, *command: object) -> Any:
        """Send a command and wait for the answer."""
        self.tell(*command)
        return self.hear()

    def tell(self, *command: object) -> None:
        """Send a command."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()

    def hear(self) -> Any:
        """Wait for an answer (the suite's time-out per test bounds the wait)."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"the child ended with {self.process.wait(PATIENCE)}"
        return json.loads(line)

    def end(self) -> int:
        """Close its input, at which it ends; the exit code."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        code = self.process.wait(PATIENCE)
        self.process.stdout.close()
        return code


@pytest.fixture
def child() -> Iterator[Callable[..., Child]]:
    """Start processes that are killed with the test at the latest."""
    started: list[Child] = []

    def start(code: str, *args: object) -> Child:
        started.append(Child(code, *args))
        return started[-1]

    yield start
    for one in started:
        one.process.kill()
        one.process.wait(PATIENCE)
        for pipe in (one.process.stdin, one.process.stdout):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):
                pipe.close()


LOCK_HOLDER = """
import json, sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=30)
for line in sys.stdin:
    connection.execute(json.loads(line)[0])
    print(json.dumps("done"), flush=True)
"""


@pytest.fixture
def lock_holder(child: Callable[..., Child], db_path: Path) -> Child:
    """Start a stranger who runs the SQL that it is asked to: `BEGIN IMMEDIATE` takes the lock."""
    return child(LOCK_HOLDER, db_path)
