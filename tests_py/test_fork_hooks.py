"""Children that exit as programs do, beside busy threads: the hooks are what saves them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork"),
    pytest.mark.timeout(180),
]

# Threads of the parent are inside our calls at every fork; children read, write, and end in
# either way. `CONTROL` takes the hooks away, to show that the test would notice.
SCRIPT = """
    import os, sys, threading, warnings

    # Python 3.12 warns of a fork beside threads; these are the test's own.
    warnings.simplefilter("ignore", DeprecationWarning)

    if "CONTROL" in os.environ:
        os.register_at_fork = lambda **hooks: None
    from cachetronomy import Cachetronaut

    cache = Cachetronaut(db_path=sys.argv[1])
    cache.set("parent", 1)
    stop = threading.Event()

    def work(name):
        number = 0
        while not stop.is_set():
            cache.set(f"{name}-{number % 20}", number)
            cache.get(f"{name}-{number % 20}")
            number += 1

    threads = [threading.Thread(target=work, args=(n,), daemon=True) for n in range(2)]
    for thread in threads:
        thread.start()
    for number in range(int(sys.argv[2])):
        pid = os.fork()
        if pid == 0:
            assert cache.get("parent") == 1
            cache.set(f"child-{number}", number)
            cache.set("last", number)
            assert cache.get(f"child-{number}") == number
            if number % 2:
                sys.exit(0)
            os._exit(0)
        _, status = os.waitpid(pid, 0)
        assert status == 0, (number, status)
        assert cache.get("last") == number, "the parent sees what its child wrote"
    stop.set()
    for thread in threads:
        thread.join()
    for number in range(int(sys.argv[2])):
        assert cache.get(f"child-{number}") == number
    assert cache.check() == []
    assert cache.stats()["errors"] == 0
    cache.close()
    print("done")
"""

POOL = """
    import multiprocessing, sys
    from cachetronomy import Cachetronaut

    cache = Cachetronaut(db_path=sys.argv[1])

    @cache
    def double(number):
        return 2 * number

    double(1)
    with multiprocessing.get_context("fork").Pool(3) as pool:
        assert pool.map(double, range(30)) == [2 * number for number in range(30)]
    assert len(cache.store_keys()) == 30
    print("done")
"""


def run(script: str, *arguments: str, timeout: float, **env: str) -> str:
    """Run a script in a process of its own; what it printed."""
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(script), *arguments],
        env=os.environ | env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            return process.communicate(timeout=timeout)[0]
        finally:
            # A child that hangs, as the control's does, must not outlive the test.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def test_forks_while_threads_are_inside_our_calls_lose_nothing(tmp_path: Path) -> None:
    assert run(SCRIPT, str(tmp_path / "a.db"), "20", timeout=150) == "done\n"


def test_without_the_hooks_that_test_fails(tmp_path: Path) -> None:
    try:
        output = run(SCRIPT, str(tmp_path / "a.db"), "20", timeout=10, CONTROL="1")
    except subprocess.TimeoutExpired:
        return
    assert output != "done\n"


def test_a_pool_of_forked_workers_shares_the_cache(tmp_path: Path) -> None:
    """The client's own thread is gone at the fork, so that Python has nothing to warn of."""
    assert run(POOL, str(tmp_path / "a.db"), timeout=60) == "done\n"


def test_a_private_cache_is_copied_into_the_child() -> None:
    script = """
        import os
        from cachetronomy import Cachetronaut
        cache = Cachetronaut(db_path=":memory:")
        cache.set("a", 1)
        pid = os.fork()
        if pid == 0:
            cache.set("a", 2)
            os._exit(0 if cache.get("a") == 2 else 1)
        assert os.waitpid(pid, 0)[1] == 0
        assert cache.get("a") == 1
        print("done")
    """
    assert run(script, timeout=60) == "done\n"
