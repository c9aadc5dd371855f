"""The async client under every event loop there is, across threads, forks and the program's end."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import importlib.util
import inspect
import itertools
import os
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from cachetronomy import (
    AsyncCachetronaut,
    CacheClosedError,
    Cachetronaut,
    CorruptStoreError,
    InvalidKeyError,
    InvalidSettingError,
    Profile,
    SerializationError,
    _core,
)
from conftest import PATIENCE, Child, environment

LARGE = "x" * 400_000  # A row of more than 256 KiB is not read on the event loop.
GENEROUS = 10  # seconds; the machines of a CI are busy
RUNS = int(
    os.environ.get("CACHETRONOMY_EXITS", "1")
)  # of each program that ends while something is under way

Main = Callable[[], Coroutine[Any, Any, Any]]
Run = Callable[[Main], Any]


def needs(module: str) -> pytest.MarkDecorator:
    missing = importlib.util.find_spec(module) is None
    return pytest.mark.skipif(missing, reason=f"needs {module}")


def run_uvloop(main: Main) -> Any:
    import uvloop  # noqa: PLC0415 - it may be missing

    loop = uvloop.new_event_loop()
    try:
        return loop.run_until_complete(main())
    finally:
        loop.close()


def run_anyio(main: Main) -> Any:
    import anyio  # noqa: PLC0415 - it may be missing

    return anyio.run(main, backend="asyncio")


LOOPS = [
    pytest.param(lambda main: asyncio.run(main()), id="asyncio"),
    pytest.param(lambda main: asyncio.run(main(), debug=True), id="debug"),
    pytest.param(run_uvloop, id="uvloop", marks=needs("uvloop")),
    pytest.param(run_anyio, id="anyio", marks=needs("anyio")),
]


async def double(number: int) -> int:
    """Take a while."""
    await asyncio.sleep(0)
    return 2 * number


async def use(cache: AsyncCachetronaut, name: str) -> None:
    """Use a client in all the ways that answers come back to a loop."""
    function = cache(double)
    number = sum(name.encode())
    await asyncio.gather(*(cache.set(f"{name} {n}", n) for n in range(20)))
    await cache.set(f"{name} large", LARGE)
    await cache.evict_all()
    assert await asyncio.gather(*(cache.get(f"{name} {n}") for n in range(20))) == [*range(20)]
    assert await cache.get(f"{name} large") == LARGE
    assert await cache.get(f"{name} missing", default="none") == "none"
    assert await cache.get_many([f"{name} 1", f"{name} 2"]) == {f"{name} 1": 1, f"{name} 2": 2}
    counts = await asyncio.gather(*(cache.incr(f"{name} counter") for _ in range(20)))
    assert sorted(counts) == [*range(1, 21)]
    assert await asyncio.gather(*(function(number) for _ in range(9))) == [2 * number] * 9
    assert await function.invalidate(number) is True
    assert await cache.get_or_compute(f"{name} computed", lambda: double(4)) == 8
    assert len(await cache.keys(f"{name} *")) == 23
    async with cache.lock(f"{name} lock"):
        assert await cache.pop(f"{name} 3") == 3
    with pytest.raises(SerializationError):
        await cache.incr(f"{name} large")
    await cache.flush()


@pytest.mark.parametrize("run", LOOPS)
@pytest.mark.parametrize("offload_reads", [False, True])
def test_it_works_under(run: Run, db_path: Path, offload_reads: bool) -> None:
    async def main() -> None:
        async with AsyncCachetronaut(db_path, offload_reads=offload_reads) as cache:
            await use(cache, "a")
            assert await cache.check() == []

    run(main)


@pytest.mark.parametrize("run", LOOPS)
def test_one_run_after_another_on_one_client(run: Run, db_path: Path) -> None:
    cache = AsyncCachetronaut(db_path)
    run(lambda: use(cache, "a"))
    run(lambda: use(cache, "b"))
    asyncio.run(use(cache, "c"))
    assert sorted(run(lambda: cache.keys("* counter"))) == ["a counter", "b counter", "c counter"]
    run(cache.shutdown)


@needs("anyio")
def test_tasks_of_a_group_of_anyio(db_path: Path) -> None:
    import anyio  # noqa: PLC0415 - it may be missing

    async def main() -> None:
        async with AsyncCachetronaut(db_path) as cache, anyio.create_task_group() as group:
            for name in "abc":
                group.start_soon(use, cache, name)
        with anyio.move_on_after(0) as scope:
            async with AsyncCachetronaut(db_path) as cache:
                await cache.get("a counter")
        assert scope.cancelled_caught

    run_anyio(main)


class Thread(threading.Thread):
    """Hands on what it raised."""

    def __init__(self, work: Callable[[], Any]) -> None:
        super().__init__(daemon=True)
        self.work = work
        self.result: Any = None
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            self.result = self.work()
        except BaseException as error:
            self.error = error

    def outcome(self) -> Any:
        self.join(PATIENCE)
        assert not self.is_alive()
        if self.error is not None:
            raise self.error
        return self.result


def all_at_once(*works: Callable[[], Any]) -> list[Any]:
    """Do all this in threads; what each returned."""
    threads = [Thread(work) for work in works]
    for thread in threads:
        thread.start()
    return [thread.outcome() for thread in threads]


def test_two_loops_at_once_on_one_client(db_path: Path) -> None:
    cache = AsyncCachetronaut(db_path)
    together = threading.Barrier(3)

    async def main(name: str) -> None:
        together.wait(PATIENCE)  # The first call opens the client.
        for n in range(5):
            await use(cache, f"{name}{n}")
        assert await asyncio.gather(*(cache.incr("both", 0) for _ in range(9))) == [0] * 9

    works = [functools.partial(lambda name: asyncio.run(main(name)), name) for name in "abc"]
    all_at_once(*works)
    assert asyncio.run(cache.check()) == []
    asyncio.run(cache.shutdown())


# Compute once.


class Party:
    """Those who ask for one key; the computation lasts until all of them have missed."""

    def __init__(self, path: Path, clients: int) -> None:
        self.clients = [AsyncCachetronaut(path) for _ in range(clients)]
        self.plain = Cachetronaut(path)
        self.calls: list[str] = []
        self.started = threading.Event()

    async def compute(self) -> str:
        self.calls.append(threading.current_thread().name)
        self.started.set()
        missed = 0
        while missed < 2 * 8 + 1:
            seen = [await client.stats() for client in self.clients]
            missed = sum(one["misses"] for one in (*seen, self.plain.stats()))
            await asyncio.sleep(0.001)
        return "computed"

    async def ask(self, client: AsyncCachetronaut) -> list[str]:
        asking = (client.get_or_compute("key", self.compute) for _ in range(8))
        return await asyncio.gather(*asking)

    def tasks(self, number: int) -> list[str]:
        return asyncio.run(self.ask(self.clients[number]))

    def thread(self) -> list[str]:
        return [self.plain.get_or_compute("key", lambda: asyncio.run(self.compute()))]


@pytest.mark.parametrize("leader", ["task", "thread"])
@pytest.mark.parametrize("clients", [1, 2])
def test_of_tasks_of_two_loops_and_a_thread_one_computes(
    db_path: Path, leader: str, clients: int
) -> None:
    party = Party(db_path, clients)
    works = [lambda: party.tasks(0), lambda: party.tasks(-1), party.thread]
    if leader == "thread":
        works.reverse()

    def later(work: Callable[[], Any]) -> Any:
        assert party.started.wait(PATIENCE)
        return work()

    others = [functools.partial(later, work) for work in works[1:]]
    results = all_at_once(works[0], *others)
    assert sorted(itertools.chain(*results)) == ["computed"] * 17
    assert len(party.calls) == 1
    for client in party.clients:
        asyncio.run(client.shutdown())
    party.plain.close()


def test_of_tasks_of_two_loops_that_call_a_decorated_function_one_computes(db_path: Path) -> None:
    cache = AsyncCachetronaut(db_path)
    calls, started = [], threading.Event()

    @cache
    async def slow(number: int) -> int:
        calls.append(number)
        started.set()
        missed = 0
        while missed < 16:
            missed = (await cache.stats())["misses"]
            await asyncio.sleep(0.001)
        return number

    async def main() -> list[int]:
        return await asyncio.gather(*(slow(7) for _ in range(8)))

    def second() -> list[int]:
        assert started.wait(PATIENCE)
        return asyncio.run(main())

    assert all_at_once(lambda: asyncio.run(main()), second) == [[7] * 8] * 2
    assert calls == [7]
    asyncio.run(cache.shutdown())


# The end of a loop, and of the program.

PRELUDE = """
import asyncio, os, sys, threading, warnings
from cachetronomy import AsyncCachetronaut, CachetronomyError

cache = AsyncCachetronaut(sys.argv[1])
LARGE = "x" * 400_000

@cache
async def double(number):
    await asyncio.sleep(0)
    return 2 * number

def say(word):
    os.write(1, f"{word}\\n".encode())

async def tell(key):
    await cache.set(key, key)
    say(key)

async def careful(call):
    try:
        return await call
    except CachetronomyError as error:
        return error

def begin(name, count=20):
    # What is under way in every queue, and in memory; the tasks.
    begun = [cache.get("large"), cache.stats(), cache.keys(), cache.flush(), cache.vacuum()]
    for number in range(count):
        begun += [
            tell(f"{name} {number}"), cache.incr("counter"), double(number), cache.get("large"),
            cache.get_many(["large", "missing"]), cache.delete(f"missing {number}"),
            cache.get_or_compute(f"{name} computed {number}", lambda: 1),
            cache.incr("large") if number % 9 == 0 else cache.contains("large"),
        ]
    return [asyncio.ensure_future(careful(one)) for one in begun]

async def prepare():
    # In debug mode; the machine may be busy.
    asyncio.get_running_loop().slow_callback_duration = 60
    await cache.set("large", LARGE)
    await cache.evict_all()
"""

ENDS = {
    "run": """
async def main():
    await prepare()
    begin("run")
    await asyncio.sleep(0)
asyncio.run(main())
""",
    "run, after a while": """
async def main():
    await prepare()
    begin("run")
    while not await cache.contains("run 1"):
        pass
asyncio.run(main())
""",
    "cancelled and closed": """
async def main():
    await prepare()
    begin("closed")
    await asyncio.sleep(0)
loop = asyncio.new_event_loop()
loop.run_until_complete(main())
for task in asyncio.all_tasks(loop):
    task.cancel()
loop.run_until_complete(asyncio.sleep(0))
loop.close()
""",
    "another run": """
async def main():
    await prepare()
    begin("first")
    await asyncio.sleep(0)
asyncio.run(main())
async def again():
    assert len(await cache.get("large")) == 400_000
    await asyncio.gather(*(tell(f"second {number}") for number in range(50)))
    await cache.shutdown()
asyncio.run(again())
""",
    "shutdown": """
async def main():
    await prepare()
    begin("shutdown")
    await asyncio.sleep(0)
    await cache.shutdown()
asyncio.run(main())
""",
    "shutdown in a block": """
async def main():
    async with cache:
        await prepare()
        begin("shutdown")
        await asyncio.sleep(0)
asyncio.run(main())
""",
    "dropped": """
async def main():
    global cache, double
    await prepare()
    begin("dropped")
    await asyncio.sleep(0)
    del cache, double
asyncio.run(main())
""",
    "opening": """
async def main():
    opening = asyncio.ensure_future(cache.init_async())
    await asyncio.sleep(0)
asyncio.run(main())
""",
    "daemon thread": """
started = threading.Event()
async def main():
    await prepare()
    number = 0
    while True:
        begin(f"thread {number}", 3)
        await asyncio.sleep(0.001)
        await tell(f"told {number}")
        number += 1
        started.set()
def run():
    try:
        asyncio.run(main())
    except BaseException:  # The client is closed before the thread is gone.
        while True:
            threading.Event().wait(60)
threading.Thread(target=run, daemon=True).start()
started.wait()
""",
    "interrupt": """
import signal
async def main():
    await prepare()
    begin("interrupt")
    await asyncio.sleep(0)
    signal.raise_signal(signal.SIGINT)
    await asyncio.sleep(60)
try:
    asyncio.run(main())
except KeyboardInterrupt:
    say("interrupt 0") if asyncio.run(cache.contains("interrupt 0")) else None
""",
    "SystemExit": """
async def main():
    await prepare()
    begin("exit")
    await asyncio.sleep(0)
    sys.exit(0)
asyncio.run(main())
""",
}


def strictly(code: str, *args: object, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a program to its end in development mode, in which a warning is an error."""
    return subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", code, *map(str, args)],
        env={**environment(), **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )


UVLOOP = """
import uvloop
async def main():
    await prepare()
    begin("uvloop")
    await asyncio.sleep(0)
loop = uvloop.new_event_loop()
loop.run_until_complete(main())
for task in asyncio.all_tasks(loop):
    task.cancel()
loop.run_until_complete(asyncio.sleep(0))
loop.close()
"""


@pytest.mark.parametrize("name", [*ENDS, pytest.param("uvloop", marks=needs("uvloop"))])
def test_a_loop_and_a_program_end_cleanly_with_operations_under_way(
    tmp_path: Path, name: str
) -> None:
    for run in range(RUNS):
        path = tmp_path / f"{run}.db"
        done = strictly(PRELUDE + ENDS.get(name, UVLOOP), path)
        assert (done.returncode, done.stderr) == (0, "")
        told = done.stdout.splitlines()
        with Cachetronaut(path) as cache:
            assert [key for key in told if cache.get(key) != key] == []
            assert cache.check() == []


def test_a_program_that_closed_its_client_ends_cleanly(tmp_path: Path) -> None:
    code = (
        "import asyncio, sys\n"
        "from cachetronomy import AsyncCachetronaut\n"
        "async def main():\n"
        "    async with AsyncCachetronaut(sys.argv[1]) as cache:\n"
        "        await cache.set('key', 1)\n"
        "loop = asyncio.new_event_loop()\n"
        "loop.run_until_complete(main())\n"
        "loop.close()\n"
    )
    for run in range(4 * RUNS):
        done = strictly(code, tmp_path / f"{run % 2}.db")
        assert (done.returncode, done.stderr) == (0, "")


def test_a_daemon_loop_in_code_of_its_own_does_not_abort_the_exit(tmp_path: Path) -> None:
    code = """
import time
class Loop(asyncio.SelectorEventLoop):  # As in debug mode: code that lets go of the interpreter.
    def create_future(self):
        time.sleep(0.05)
        return super().create_future()
    def call_soon(self, *args, **kwargs):
        time.sleep(0.001)
        return super().call_soon(*args, **kwargs)
started = threading.Event()
async def main():
    await cache.set("key", 1)
    started.set()
    while True:
        await cache.incr("n")
threading.Thread(target=lambda: Loop().run_until_complete(main()), daemon=True).start()
started.wait()
"""
    for run in range(RUNS):
        done = strictly(PRELUDE + code, tmp_path / f"{run}.db")
        assert done.returncode == 0, done.stderr


def test_every_debug_mode_is_content(db_path: Path) -> None:
    code = """
async def main():
    assert asyncio.get_running_loop().get_debug()
    await prepare()
    await asyncio.gather(*begin("debug"))
    async with cache.lock("lock"):
        assert await cache.get_or_compute("computed", lambda: double(2)) == 4
    await cache.shutdown()
asyncio.run(main())
"""
    done = strictly(PRELUDE + code, db_path, PYTHONASYNCIODEBUG="1")
    assert (done.returncode, done.stderr) == (0, "")


def test_a_client_that_waits_for_a_lock_to_open_does_not_keep_the_program_from_ending(
    db_path: Path, tmp_path: Path, lock_holder: Child
) -> None:
    with Cachetronaut(db_path) as cache:
        cache.set("key", 1)
    code = """
other = AsyncCachetronaut(sys.argv[2], busy_timeout=20)
async def main():
    await cache.set("mine", 1)
    await prepare()
    for call in (other.init_async(), other.set("key", 2), cache.set("mine", 2)):
        asyncio.ensure_future(call)
    await asyncio.sleep(0)
asyncio.run(main())
"""
    lock_holder.ask("PRAGMA locking_mode=EXCLUSIVE")
    lock_holder.ask("BEGIN IMMEDIATE")
    start = time.perf_counter()
    done = strictly(PRELUDE + code, tmp_path / "own.db", db_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert time.perf_counter() - start < GENEROUS


@needs("trio")
@pytest.mark.parametrize("call", ["init_async()", "get('key')", "set('key', 1)", "__aenter__()"])
def test_under_trio_the_first_call_says_what_to_do(db_path: Path, call: str) -> None:
    import trio  # noqa: PLC0415 - it may be missing

    async def main() -> None:
        cache = AsyncCachetronaut(db_path)
        with pytest.raises(RuntimeError, match=r"trio.*Cachetronaut.*trio\.to_thread\.run_sync"):
            await eval(f"cache.{call}", {"cache": cache})

    trio.run(main)
    assert not db_path.exists()


@needs("trio")
def test_what_it_says_works_under_trio(db_path: Path) -> None:
    import trio  # noqa: PLC0415 - it may be missing

    async def main() -> int:
        cache = await trio.to_thread.run_sync(Cachetronaut, db_path)
        await trio.to_thread.run_sync(cache.set, "key", 1)
        value: int = await trio.to_thread.run_sync(cache.get, "key")
        await trio.to_thread.run_sync(cache.close)
        return value

    assert trio.run(main) == 1


# Forks.

FORK = """
warnings.simplefilter("ignore", DeprecationWarning)  # Of forks beside threads, from 3.12 on.

async def in_child(number):
    await cache.set(f"child {number}", number)
    assert await cache.get(f"child {number}") == number
    assert await cache.get("large") == LARGE
    assert await cache.get_many(["large", f"child {number}"]) == {
        "large": LARGE, f"child {number}": number
    }
    assert await double(number + 1_000) == 2_000 + 2 * number
    assert await cache.incr("children") > 0
    assert await cache.get_or_compute(f"in child {number}", lambda: double(4)) == 8
    async with cache.lock("lock"):
        assert f"child {number}" in await cache.keys("child *")
    if number % 3 == 0:
        await cache.shutdown()

def fork(number):
    child = os.fork()
    if child == 0:
        code = 1
        try:
            asyncio.run(in_child(number))
            code = 0
        finally:
            os._exit(code)
    return child

def wait(child):
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
"""

FORKS = {
    "the loop's thread": """
async def main():
    for number in range(12):
        await prepare()
        begun = begin(f"parent {number}", 5)
        for _ in range(number % 4):
            await asyncio.sleep(0)
        child = fork(number)
        await asyncio.gather(*begun)
        await asyncio.to_thread(wait, child)
        assert await cache.get(f"child {number}") == number
    assert await cache.get("counter") == 60
    assert await cache.get("children") == 12
    assert await cache.check() == []
    await cache.shutdown()
asyncio.run(main())
""",
    "a thread of the loop's": """
async def main():
    for number in range(12):
        await prepare()
        begun = begin(f"parent {number}", 5)
        child = await asyncio.to_thread(fork, number)
        await asyncio.gather(*begun)
        await asyncio.to_thread(wait, child)
        assert await cache.get(f"child {number}") == number
    assert await cache.get("counter") == 60
    assert await cache.check() == []
    await cache.shutdown()
asyncio.run(main())
""",
    "the main thread, beside the loop's": """
stop, started = threading.Event(), threading.Event()
async def main():
    rounds = 0
    while not stop.is_set():
        await prepare()
        await asyncio.gather(*begin(f"parent {rounds % 5}", 3))
        rounds += 1
        started.set()
    assert await cache.get("counter") == 3 * rounds
    assert await cache.check() == []
errors = []
def run():
    try:
        asyncio.run(main())
    except BaseException as error:
        errors.append(error)
    started.set()
thread = threading.Thread(target=run)
thread.start()
started.wait()
for number in range(12):
    if number % 2:
        wait(fork(number))
        continue
    child = os.fork()
    if child == 0:
        asyncio.run(in_child(number))
        sys.exit(0)
    wait(child)
stop.set()
thread.join()
assert not errors, errors
assert asyncio.run(cache.get("children")) == 12
""",
}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.parametrize("who", FORKS)
def test_who_forks_with_operations_under_way_and_the_child_go_on(db_path: Path, who: str) -> None:
    done = strictly(PRELUDE + FORK + FORKS[who], db_path)
    assert (done.returncode, done.stderr) == (0, "")
    with Cachetronaut(db_path) as cache:
        assert cache.get_many([f"child {n}" for n in range(12)]) == {
            f"child {n}": n for n in range(12)
        }
        assert cache.check() == []


# The caller's context.

WHO: contextvars.ContextVar[str] = contextvars.ContextVar("who", default="nobody")
COUNT = itertools.count()


@pytest.fixture
def format_of_the_context() -> tuple[str, list[str]]:
    """Register a format whose `loads` and `dumps` look at a context variable."""
    name, seen = f"context {next(COUNT)}", []

    def dumps(value: Any) -> bytes:
        seen.append(f"dumps {WHO.get()}")
        return pickle.dumps(value)

    def loads(data: bytes) -> Any:
        seen.append(f"loads {WHO.get()}")
        return pickle.loads(data)

    _core.register_serializer(name, dumps, loads)
    return name, seen


READS: dict[str, Callable[[AsyncCachetronaut], Coroutine[Any, Any, Any]]] = {
    "get": lambda cache: cache.get("key"),
    "get_many": lambda cache: cache.get_many(["key"]),
    "pop": lambda cache: cache.pop("key"),
    "items": lambda cache: cache.items(),
    "get_or_compute": lambda cache: cache.get_or_compute("key", lambda: "not that"),
    "decorated": lambda cache: cache(key_builder=lambda *_: "key")(double)(1),
}


@pytest.mark.parametrize("size", [10, len(LARGE)])
@pytest.mark.parametrize("offload_reads", [False, True])
@pytest.mark.parametrize("read", READS)
def test_a_format_of_the_programs_sees_the_callers_context(
    db_path: Path,
    format_of_the_context: tuple[str, list[str]],
    read: str,
    size: int,
    offload_reads: bool,
) -> None:
    name, seen = format_of_the_context

    async def caller(cache: AsyncCachetronaut, who: str) -> None:
        WHO.set(who)
        await cache.set("key", LARGE[:size], prefer=name)
        await cache.evict_all()
        assert LARGE[:size] in repr(await READS[read](cache))

    async def main() -> None:
        async with AsyncCachetronaut(db_path, offload_reads=offload_reads) as cache:
            await cache.init_async()
            await asyncio.create_task(caller(cache, "first"))
            await asyncio.create_task(caller(cache, "second"))

    asyncio.run(main())
    assert [one for one in seen if one.startswith("dumps")] == ["dumps first", "dumps second"]
    assert {one for one in seen if one.startswith("loads")} == {"loads first", "loads second"}


def test_the_computation_sees_the_callers_context(db_path: Path) -> None:
    async def main() -> None:
        async with AsyncCachetronaut(db_path) as cache:

            @cache(lock="process")
            async def who(number: int) -> str:
                return WHO.get()

            WHO.set("me")
            assert await who(1) == "me"
            assert await who.refresh(1) == "me"
            assert await cache.get_or_compute("key", WHO.get, lock="process") == "me"
            assert WHO.get() == "me"

    asyncio.run(main())


# Profiles.

QUICK = Profile(name="quick", time_to_live=60, tags=["quick"])
SLOW = Profile(name="slow", time_to_live=600, tags=["slow"])


def test_a_profile_applies_to_the_next_write(db_path: Path) -> None:
    async def main() -> None:
        async with AsyncCachetronaut(db_path) as cache:
            function = cache(double)
            names = itertools.cycle(["set", "set_many", "incr", "add", "decorated", "computed"])
            for profile, name in zip([QUICK, SLOW] * 6, names, strict=False):
                key = f"{profile.name} {name}"
                if name in {"set", "incr", "decorated"}:
                    cache.profile = profile
                else:
                    assert (await cache.set_profile(profile)).name == profile.name
                if name == "set":
                    await cache.set(key, 1)
                elif name == "set_many":
                    await cache.set_many({key: 1})
                elif name == "incr":
                    await cache.incr(key)
                elif name == "add":
                    await cache.add(key, 1)
                elif name == "decorated":
                    await function.refresh(1)
                    key = function.key_for(1)
                else:
                    await cache.get_or_compute(key, lambda: 1)
                found = await cache.key_metadata(key)
                assert found is not None
                assert found.tags == profile.tags
                assert found.saved_by_profile == profile.name
                assert cache.profile.name == profile.name
                left = await cache.ttl(key)
                assert left is not None
                assert profile.time_to_live - 60 < left <= profile.time_to_live

    asyncio.run(main())


def test_a_profile_may_be_assigned_before_the_client_is_open(db_path: Path) -> None:
    async def main() -> None:
        cache = AsyncCachetronaut(db_path, profile=SLOW)
        cache.profile = "other"
        cache.profile = QUICK
        await asyncio.gather(*(cache.set(f"key {n}", n) for n in range(20)))
        assert len(await cache.keys(tag="quick")) == 20
        cache.profile = None
        await cache.set("key", 1)
        found = await cache.key_metadata("key")
        assert found is not None
        assert found.saved_by_profile == "default"
        assert [one.name for one in await cache.list_profiles()] == ["default", "quick", "slow"]
        await cache.shutdown()

    asyncio.run(main())


def test_of_two_profiles_assigned_at_once_the_last_one_is_active(db_path: Path) -> None:
    async def main() -> None:
        async with AsyncCachetronaut(db_path) as cache:
            cache.profile = QUICK
            first = asyncio.ensure_future(cache.set("first", 1))
            await asyncio.sleep(0)  # The switch is under way.
            cache.profile = SLOW
            await asyncio.gather(first, *(cache.set(f"key {n}", n) for n in range(9)))
            assert cache.profile.name == "slow"
            assert len(await cache.keys("key *", tag="slow")) == 9

    asyncio.run(main())


# Opening and closing.


def test_a_client_that_is_used_opens_itself(db_path: Path) -> None:
    calls: list[Callable[[AsyncCachetronaut], Coroutine[Any, Any, Any]]] = [
        lambda cache: cache.get("key"),
        lambda cache: cache.get("key", default="none"),
        lambda cache: cache.set("key", 1),
        lambda cache: cache.get_many(["key"]),
        lambda cache: cache.stats(),
        lambda cache: cache.get_or_compute("computed", lambda: 1),
        lambda cache: cache(double)(1),
        lambda cache: cache.store.keys(),
        lambda cache: cache.contains("key"),
        lambda cache: cache.lock("lock").__aenter__(),
    ]

    async def main() -> None:
        for call in calls:
            cache = AsyncCachetronaut(db_path)
            await call(cache)
            assert not cache.is_closed
            await cache.shutdown()
            assert cache.is_closed

    asyncio.run(main())


def test_to_open_it_twice_and_at_once_is_to_open_it(db_path: Path) -> None:
    async def main() -> None:
        cache = AsyncCachetronaut(db_path)
        await asyncio.gather(*(cache.init_async() for _ in range(9)), cache.set("key", 1))
        await cache.init_async()
        async with cache:
            assert await cache.get("key") == 1

    asyncio.run(main())


ARGUMENTS = {
    "backup": ["copy.db"],
    "clear_by_profile": ["default"],
    "get_or_compute": ["key", lambda: 1],
    "get_or_set": ["key", lambda: 1],
    "set_many": [{"key": 1}],
    "set_profile": ["default"],
}
SAMPLES = {"keys": ["key"], "tags": ["tag"], "pattern": "*", "name": "default", "value": 1}


def awaited_calls() -> list[tuple[str, list[Any]]]:
    """Name all methods that are awaited, but those that close, with some arguments."""
    calls = []
    for name, method in inspect.getmembers(AsyncCachetronaut, inspect.iscoroutinefunction):
        if name.startswith("_") or name in {"shutdown", "close"}:
            continue
        required = [
            one.name
            for one in [*inspect.signature(method).parameters.values()][1:]
            if one.default is one.empty and one.kind == one.POSITIONAL_OR_KEYWORD
        ]
        given = ARGUMENTS.get(name) or [SAMPLES.get(one, "key") for one in required]
        calls.append((name, given))
    return calls


@pytest.mark.parametrize("was_open", [True, False])
def test_any_call_after_the_shutdown_is_an_error(db_path: Path, was_open: bool) -> None:
    async def main() -> list[str]:
        cache = AsyncCachetronaut(db_path)
        function, lock = cache(double), cache.lock("lock")
        if was_open:
            await cache.set("key", 1)
            assert await cache.get("key") == 1
        await cache.shutdown()
        tried = awaited_calls()
        assert len(tried) > 50
        wrong = []
        for name, arguments in tried:
            try:
                await getattr(cache, name)(*arguments)
                wrong.append(f"{name}: no error")
            except CacheClosedError:
                pass
            except Exception as error:
                wrong.append(f"{name}: {error!r}")
        for call in (function(1), function.refresh(1), function.invalidate(1), lock.__aenter__()):
            with pytest.raises(CacheClosedError):
                await call
        with pytest.raises(CacheClosedError):
            async with cache:
                pass
        cache.profile = "other"
        with pytest.raises(CacheClosedError):
            await cache.set("key", 1)
        return wrong

    assert asyncio.run(main()) == []


def test_to_shut_it_down_twice_and_at_once_is_to_shut_it_down(db_path: Path) -> None:
    async def main() -> None:
        for was_open in (True, False):
            cache = AsyncCachetronaut(db_path)
            if was_open:
                await cache.set("key", 1)
            await asyncio.gather(*(cache.shutdown() for _ in range(9)), cache.close())
            assert cache.is_closed
            await cache.shutdown()
            await cache.close()

    asyncio.run(main())


def test_whoever_shuts_it_down_goes_on_when_it_is_closed(db_path: Path) -> None:
    log = Path(f"{db_path}-wal")  # Whoever closes the file as the last one removes it.

    def assert_closed() -> None:
        assert not log.exists()

    async def main() -> None:
        cache = AsyncCachetronaut(db_path)
        await cache.set_many({f"large {n}": LARGE for n in range(50)})
        first = asyncio.ensure_future(cache.shutdown())
        while not first.done():
            await asyncio.sleep(0)
            await cache.shutdown()
            assert_closed()
        await first

    asyncio.run(main())


def test_to_shut_it_down_from_two_loops_at_once_is_to_shut_it_down(db_path: Path) -> None:
    for _ in range(RUNS):
        cache = AsyncCachetronaut(db_path)
        together = threading.Barrier(2)

        async def main(
            cache: AsyncCachetronaut = cache, together: threading.Barrier = together
        ) -> None:
            await cache.incr("counter")
            together.wait(PATIENCE)
            await cache.shutdown()
            assert cache.is_closed

        all_at_once(*[lambda main=main: asyncio.run(main())] * 2)
    with Cachetronaut(db_path) as cache:
        assert cache.get("counter") == 2 * RUNS


def test_the_shutdown_completes_what_was_begun(db_path: Path) -> None:
    async def main() -> None:
        cache = AsyncCachetronaut(db_path)
        await cache.init_async()
        setting = [asyncio.ensure_future(cache.set(f"key {n}", n)) for n in range(1_000)]
        counting = [asyncio.ensure_future(cache.incr("counter")) for _ in range(20)]
        await asyncio.sleep(0)  # Each has begun.
        closing = asyncio.ensure_future(cache.shutdown())
        assert await asyncio.gather(*setting) == [None] * 1_000
        assert sorted(await asyncio.gather(*counting)) == [*range(1, 21)]
        await closing

    asyncio.run(main())
    with Cachetronaut(db_path) as cache:
        assert len(cache) == 1_001
        assert cache.get_many([f"key {n}" for n in range(1_000)]) == {
            f"key {n}": n for n in range(1_000)
        }
        assert cache.get("counter") == 20
        assert cache.check() == []


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc")
@pytest.mark.parametrize("call", ["init_async()", "get('key')", "set('key', 1)", "__aenter__()"])
def test_a_file_that_is_no_cache_is_refused_and_leaves_no_thread(
    tmp_path: Path, run_python: Callable[..., subprocess.CompletedProcess[str]], call: str
) -> None:
    bad = tmp_path / "bad.db"
    bad.write_bytes(b"no cache at all, but some text" * 100)
    code = f"""
import asyncio, contextlib, os, sys
from cachetronomy import AsyncCachetronaut, CorruptStoreError
def threads():
    names = []
    for it in os.listdir("/proc/self/task"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # It has just ended.
            names.append(open(f"/proc/self/task/{{it}}/comm").read())
    return [name for name in names if "cachetronomy" in name]
async def main():
    for end in (False, True):
        cache = AsyncCachetronaut(sys.argv[1])
        for _ in "12":
            try:
                await cache.{call}
            except CorruptStoreError as error:
                assert sys.argv[1] in str(error)
            else:
                raise AssertionError("no error")
        if end:
            await cache.shutdown()
        del cache
        for _ in range(1_000):  # One may be on its way out.
            if not threads():
                break
            await asyncio.sleep(0.005)
        print(threads())
asyncio.run(main())
"""
    done = run_python(code, bad)
    assert (done.stdout, done.stderr) == ("[]\n[]\n", "")
    assert bad.read_bytes() == b"no cache at all, but some text" * 100


def test_a_bad_file_is_refused_by_whatever_comes_first(tmp_path: Path) -> None:
    bad = tmp_path / "bad.db"
    bad.write_bytes(b"no cache at all" * 100)

    async def main() -> None:
        cache = AsyncCachetronaut(bad)
        results = await asyncio.gather(
            cache.init_async(),
            cache.get("key"),
            cache.set("key", 1),
            cache.stats(),
            cache(double)(1),
            return_exceptions=True,
        )
        assert {type(result) for result in results} == {CorruptStoreError}
        bad.unlink()  # The next call tries again.
        await cache.set("key", 1)
        assert await cache.get("key") == 1
        await cache.shutdown()

    asyncio.run(main())


# What is written at the same time.


@pytest.fixture
def commits(
    db_path: Path, run_python: Callable[..., subprocess.CompletedProcess[str]]
) -> Callable[[], int]:
    """Count the transactions that changed the file, by the counter that SQLite has of them."""
    shared = Path(f"{db_path}-shm")
    if not sys.platform.startswith("linux"):
        pytest.skip("needs Linux")
    # In another process: to close the file in this one would drop SQLite's locks.
    code = (
        "import sys\n"
        "header = open(sys.argv[1], 'rb').read(12)\n"
        "assert int.from_bytes(header[:4], sys.byteorder) == 3_007_000\n"
        "print(int.from_bytes(header[8:], sys.byteorder))\n"
    )
    return lambda: int(run_python(code, shared).stdout)


@pytest.mark.parametrize("kind", ["set", "decorated", "computed"])
def test_writes_at_once_share_transactions(
    db_path: Path, commits: Callable[[], int], kind: str
) -> None:
    async def main() -> tuple[int, int]:
        async with AsyncCachetronaut(db_path) as cache:
            function = cache(double)

            def write(number: int) -> Any:
                if kind == "set":
                    return cache.set(f"key {number}", number)
                if kind == "decorated":
                    return function(number)
                return cache.get_or_compute(f"key {number}", lambda: double(number))

            await write(-1)
            start = commits()
            for number in range(100):
                await write(number)
            middle = commits()
            await asyncio.gather(*(write(number) for number in range(100, 1_100)))
            end = commits()
            assert len(await cache.keys()) == 1_101
            return middle - start, end - middle

    one_by_one, at_once = asyncio.run(main())
    # The background thread writes its counts now and then.
    assert 100 <= one_by_one < 150
    assert at_once < 100


def test_writes_at_once_are_done_in_their_order(db_path: Path) -> None:
    async def main() -> None:
        async with AsyncCachetronaut(db_path) as cache:
            for _ in range(20):
                await asyncio.gather(*(cache.set("key", n) for n in range(50)))
                assert await cache.get("key") == 49
                await cache.evict("key")
                assert await cache.get("key") == 49
                await asyncio.gather(cache.set("key", 1), cache.delete("key"))
                assert await cache.get("key") is None
                results = await asyncio.gather(
                    cache.delete("key"),
                    cache.set("key", 2),
                    cache.incr("key"),
                    cache.pop("key"),
                    cache.add("key", 4),
                    cache.add("key", 5),
                    cache.set_many({"key": 6, "other": 7}),
                    cache.delete_many(["other", "missing"]),
                    cache.touch("key"),
                )
                assert results == [False, None, 3, 3, True, False, None, 1, True]
                assert await cache.get_many(["key", "other"]) == {"key": 6}
                await asyncio.gather(cache.clear_all(), cache.set("key", 8), cache.set("other", 9))
                assert await cache.get_many(["key", "other"]) == {"key": 8, "other": 9}
                await asyncio.gather(cache.set("key", 1), cache.clear_all())
                assert await cache.count() == 0

    asyncio.run(main())


def test_each_that_writes_at_once_is_told_when_it_is_committed(
    db_path: Path, query: Callable[..., Any]
) -> None:
    async def main() -> None:
        async with AsyncCachetronaut(db_path) as cache:
            await asyncio.gather(*(cache.set(f"key {n}", n) for n in range(300)))
            rows = await asyncio.to_thread(query, db_path, "SELECT count(*) FROM cache")
            assert rows == [[300]]

    asyncio.run(main())


def test_of_writes_at_once_one_that_is_refused_fails_alone(db_path: Path) -> None:
    async def main() -> None:
        async with AsyncCachetronaut(db_path) as cache:
            results: list[Any] = await asyncio.gather(
                *(cache.set(f"key {n}", n) for n in range(100)),
                cache.set("object", object()),
                cache.set("key", 1, ttl=-1),
                cache.set("\ud800", 1),
                cache.incr("key 1"),
                *(cache.set(f"key {n}", n) for n in range(100, 200)),
                return_exceptions=True,
            )
            failed = [n for n, result in enumerate(results) if isinstance(result, Exception)]
            assert failed == [100, 101, 102]
            errors = [type(result) for result in results[100:103]]
            assert errors == [SerializationError, InvalidSettingError, InvalidKeyError]
            expected: dict[str, Any] = {f"key {n}": n for n in range(200)} | {"key 1": 2}
            for _ in "12":
                assert await cache.get_many(expected) == expected
                await cache.evict_all()
            assert await cache.count() == 200

    asyncio.run(main())


def test_a_computed_value_whose_key_was_deleted_meanwhile_holds_up_no_other(db_path: Path) -> None:
    async def main() -> None:
        async with AsyncCachetronaut(db_path) as cache:

            async def compute(key: str) -> str:
                if key == "key 7":
                    await cache.delete(key)
                return key

            keys = [f"key {n}" for n in range(50)]
            computing = (cache.get_or_compute(key, functools.partial(compute, key)) for key in keys)
            assert await asyncio.gather(*computing) == keys
            found = await cache.get_many(keys)
            assert [*found] == [key for key in keys if key != "key 7"]

    asyncio.run(main())
