"""The example that `make demo` runs: its three passes, and its resuming after a kill."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import ModuleType

EXAMPLE = Path(__file__).parent.parent / "examples" / "stdlib_report.py"
PATIENCE = 120  # seconds until a run that hangs is given up
# The suite's limit is for tests that start no second Python, let alone several.
pytestmark = pytest.mark.timeout(2 * PATIENCE)
BIG = 400  # files: some seconds of work, enough to be killed in the middle of

posix_only = pytest.mark.skipif(os.name != "posix", reason="process groups and SIGKILL")


def command(db: Path, limit: int, *more: str) -> list[str]:
    """Build the command line of one run."""
    return [sys.executable, str(EXAMPLE), "--db", str(db), "--limit", str(limit), "--json", *more]


def environment() -> dict[str, str]:
    """Take nobody's settings. A machine short of RAM must not empty the memory tier in a test."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CACHE_")}
    return kept | {"CACHE_MEMORY_BASED_EVICTION": "false"}


def run(db: Path, limit: int, *more: str) -> dict[str, Any]:
    """Run it to its end; the figures it prints."""
    done = subprocess.run(
        command(db, limit, *more),
        env=environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    figures: dict[str, Any] = json.loads(done.stdout)
    return figures


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Poll, up to a deadline."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"gave up waiting until {what}"
        time.sleep(0.01)


@contextmanager
def half_way(db: Path, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Start a run in a process group of its own; yield when its cold pass is well under way."""
    with log.open("wb") as stderr, log.with_suffix(".out").open("wb") as stdout:
        process = subprocess.Popen(
            command(db, BIG),
            env=environment(),
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,
        )
    try:
        wait_until(lambda: process.poll() is not None or progress(log) > 0, "there is progress")
        assert process.poll() is None, log.read_text()
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(PATIENCE)


def progress(log: Path) -> int:
    """Read how many files the last progress line of pass 1 names."""
    counts = re.findall(r"pass 1 of 3: (\d+)/", log.read_text())
    return int(counts[-1]) if counts else 0


def group_is_gone(group: int) -> bool:
    """Tell whether no process of the group is left."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    return False


def integrity(db: Path) -> str:
    """Ask SQLite, in another process: this one may hold the package's own SQLite."""
    code = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1])\n"
    code += "print(c.execute('PRAGMA integrity_check').fetchone()[0])"
    done = subprocess.run(
        [sys.executable, "-c", code, str(db)], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Run the big one once, undisturbed, to compare with."""
    return run(tmp_path_factory.mktemp("uninterrupted") / "demo.db", BIG)


@pytest.fixture(scope="module")
def example() -> ModuleType:
    """Import the example, to call its functions."""
    spec = importlib.util.spec_from_file_location("stdlib_report", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def ctrl_c_works() -> Iterator[None]:
    """Have SIGINT reach what the test starts: a background job of a shell inherits it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_each_pass_is_served_by_its_tier(tmp_path: Path) -> None:
    figures = run(tmp_path / "new" / "folder" / "demo.db", 60)
    cold, store, memory = figures["passes"]
    keys = figures["report"]["files"] + figures["report"]["packages"]
    assert figures["report"]["files"] == 60
    assert (figures["resumed"], figures["store_keys"]) == (0, keys)
    assert (cold["misses"], cold["store_hits"]) == (keys, 0)
    # Nested calls: each package's summary asks for each of its files again.
    assert cold["memory_hits"] >= 60
    assert (store["misses"], store["store_hits"]) == (0, keys)
    assert (memory["misses"], memory["store_hits"]) == (0, 0)
    assert memory["memory_hits"] == store["memory_hits"] + store["store_hits"] > keys
    assert (store["hit_ratio"], memory["hit_ratio"]) == (1.0, 1.0)
    # Every file's computing is saved once in the cold pass (nested), and again in each later one.
    assert 0 < cold["seconds_saved"] <= store["seconds_saved"] * 1.05
    assert max(store["seconds"], memory["seconds"]) < cold["seconds"]


def test_hot_keys_add_up_over_processes_and_runs(tmp_path: Path) -> None:
    once = run(tmp_path / "demo.db", 60)
    twice = run(tmp_path / "demo.db", 60)
    assert len(once["hot_keys"]) == 5
    (key, count), hits = once["hot_keys"][0], dict(twice["hot_keys"])
    assert "summarise(package=" in key
    # The summary that was computed once was a hit in all other calls; the second run only hits.
    assert hits[key] == 2 * count + 1


def test_fresh_starts_cold_and_without_it_everything_is_resumed(tmp_path: Path) -> None:
    first = run(tmp_path / "demo.db", 60)
    second = run(tmp_path / "demo.db", 60)
    fresh = run(tmp_path / "demo.db", 60, "--fresh")
    assert (second["resumed"], second["passes"][0]["misses"]) == (60, 0)
    assert (fresh["resumed"], fresh["passes"][0]["misses"]) == (0, first["passes"][0]["misses"])
    assert fresh["report"] == second["report"] == first["report"]


def test_a_person_gets_a_table(tmp_path: Path) -> None:
    args = [arg for arg in command(tmp_path / "demo.db", 60) if arg != "--json"]
    done = subprocess.run(
        args, env=environment(), capture_output=True, text=True, timeout=PATIENCE, check=True
    )
    for text in (
        "1 cold",
        "2 from the store",
        "3 from memory",
        "0 of 60 files",
        "hits   summarise(",
    ):
        assert text in done.stdout
    assert "\r" not in done.stderr
    assert done.stderr.splitlines()[9] == "pass 1 of 3: 60/60 files"


@posix_only
@pytest.mark.parametrize("victim", ["both processes", "the parent alone"])
def test_a_killed_run_is_resumed(
    tmp_path: Path, victim: str, uninterrupted: dict[str, Any]
) -> None:
    db, log = tmp_path / "demo.db", tmp_path / "stderr"
    with half_way(db, log) as process:
        done = progress(log)
        kill = os.killpg if victim == "both processes" else os.kill
        kill(process.pid, signal.SIGKILL)
        assert process.wait(PATIENCE) == -signal.SIGKILL
        figures = run(db, BIG)  # beside the orphan, if only the parent died
        wait_until(lambda: group_is_gone(process.pid), "the orphan has ended its pass")
    assert done <= figures["resumed"] <= BIG
    if victim == "both processes":
        assert figures["resumed"] < BIG
        assert figures["passes"][0]["misses"] > 0
    assert figures["report"] == uninterrupted["report"]
    assert integrity(db) == "ok"


@posix_only
@pytest.mark.usefixtures("ctrl_c_works")
@pytest.mark.parametrize("to_group", [True, False], ids=["terminal", "kill -INT"])
def test_ctrl_c_stops_at_once_and_is_resumed(tmp_path: Path, *, to_group: bool) -> None:
    db, log = tmp_path / "demo.db", tmp_path / "stderr"
    with half_way(db, log) as process:
        (os.killpg if to_group else os.kill)(process.pid, signal.SIGINT)
        assert process.wait(PATIENCE) == 130
        assert group_is_gone(process.pid)
    stderr = log.read_text()
    assert stderr.endswith("stopped; start again to resume\n")
    assert "Traceback" not in stderr
    assert progress(log) < BIG
    assert integrity(db) == "ok"
    assert run(db, BIG)["resumed"] >= progress(log) > 0


@pytest.mark.parametrize(
    "source",
    [b"print 'Python 2'", b"x = '\0'", b"# coding: no-such-codec\n", b"'\xff'", b"(" * 5000],
    ids=["syntax", "null byte", "unknown codec", "bad utf-8", "too nested"],
)
def test_what_does_not_parse_is_counted(tmp_path: Path, example: ModuleType, source: bytes) -> None:
    (tmp_path / "bad.py").write_bytes(source)
    counts = example.read_facts(str(tmp_path / "bad.py"))["counts"]
    assert counts == {"files": 1, "skipped": 1, "lines": 0, "functions": 0, "classes": 0}


def test_facts_of_a_file_are_right(tmp_path: Path, example: ModuleType) -> None:
    path = tmp_path / "good.py"
    path.write_text(
        "import os.path, re\nfrom json import loads\nfrom . import near\n"
        "class A:\n    def f(self):\n        async def g():\n            pass\n        '\\d'\n"
    )
    facts = example.read_facts(str(path))
    assert facts["counts"] == {"files": 1, "skipped": 0, "lines": 8, "functions": 2, "classes": 1}
    assert facts["imports"] == {"os": 1, "re": 1, "json": 1}
    (f_lines, f_name), (g_lines, g_name) = facts["longest"]
    assert (f_lines, g_lines) == (4, 2)
    assert f_name.endswith("good.py: A.f")
    assert g_name.endswith("good.py: A.f.g")
