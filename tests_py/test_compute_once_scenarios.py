"""Calls from where nobody expects them, and computations that end as they should not.

Each program runs under a watchdog that ends it with the traceback of every thread.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

PRELUDE = """
import asyncio, faulthandler, gc, itertools, json, logging, os, signal, sys, threading, time
import warnings, weakref
signal.signal(signal.SIGINT, signal.default_int_handler)  # A job in the background ignores it.
faulthandler.dump_traceback_later(20, exit=True)
warnings.simplefilter("error")
from cachetronomy import Cachetronaut
lock = json.loads(sys.argv[2])
cache = Cachetronaut(sys.argv[1])
calls = []

def same_key(function, args, kwargs):
    return "k"

def until(condition):
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end, "it does not come about"
        time.sleep(0.001)

def missed(count):
    until(lambda: cache.stats()["misses"] >= count)

class Threads:
    def __init__(self):
        self.threads, self.results = [], []
    def __call__(self, work, *args):
        def run():
            try:
                self.results.append(work(*args))
            except BaseException as error:
                self.results.append(error)
        self.threads.append(threading.Thread(target=run))
        self.threads[-1].start()
    def join(self):
        for thread in self.threads:
            thread.join()
        return self.results
threads = Threads()
"""

REENTRANT = {
    "a function that calls itself": """
@cache(lock=lock)
def function(number):
    calls.append(1)
    return 1 if len(calls) > 2 else function(number)
assert function(1) == 1 and len(calls) == 3
assert function(1) == 1 and len(calls) == 3
""",
    "a coroutine function that calls itself": """
@cache(lock=lock)
async def function(number):
    calls.append(1)
    await asyncio.sleep(0)
    return 1 if len(calls) > 2 else await function(number)
assert asyncio.run(function(1)) == 1 and len(calls) == 3
""",
    "get_or_compute in itself": """
def compute():
    calls.append(1)
    return 1 if len(calls) > 2 else cache.get_or_compute("k", compute, lock=lock)
assert cache.get_or_compute("k", compute, lock=lock) == 1 and len(calls) == 3
""",
    "get_or_compute in a circle, in many threads": """
def nested(depth):
    calls.append(1)
    names = "abc"
    if depth == 6:
        return 1
    return cache.get_or_compute(names[depth % 3], lambda: nested(depth + 1), lock=lock)
for start in range(12):
    threads(lambda start=start: nested(start % 3))
assert threads.join() == [1] * 12, threads.results
""",
    "two functions that call each other, from two threads": """
both = threading.Barrier(2)
@cache(lock=lock)
def left(deep=False):
    both.wait() if len(calls) < 2 and not calls.append(1) else None
    return "l" if deep else right(True)
@cache(lock=lock)
def right(deep=False):
    both.wait() if len(calls) < 2 and not calls.append(1) else None
    return "r" if deep else left(True)
def same(function, args, kwargs):
    return function.__name__
left = cache(lock=lock, key_builder=same)(left.__wrapped__)
right = cache(lock=lock, key_builder=same)(right.__wrapped__)
threads(left)
threads(right)
assert set(threads.join()) <= {"l", "r"}, threads.results
""",
    "two coroutine functions that call each other, in two tasks": """
def same(function, args, kwargs):
    return function.__name__
@cache(lock=lock, key_builder=same)
async def left(deep=False):
    await asyncio.sleep(0.05)
    return "l" if deep else await right(True)
@cache(lock=lock, key_builder=same)
async def right(deep=False):
    await asyncio.sleep(0.05)
    return "r" if deep else await left(True)
async def main():
    return await asyncio.gather(left(), right())
assert set(asyncio.run(main())) <= {"l", "r"}
""",
    "a call from the tags of a call": """
def tags(number):
    calls.append(1)
    return ["t"] if len(calls) > 2 else [f"{function(number)}"]
@cache(lock=lock, tags=tags)
def function(number):
    return number
assert function(1) == 1
""",
    "a call from the condition of a call": """
def condition(result):
    calls.append(1)
    return len(calls) > 2 or function(1) == 1
@cache(lock=lock, condition=condition)
def function(number):
    return number
assert function(1) == 1
""",
    "a call from the time to live of a call": """
def ttl(result):
    calls.append(1)
    return 60 if len(calls) > 2 else 60 * function(1)
@cache(lock=lock, ttl=ttl)
def function(number):
    return number
assert function(1) == 1
""",
    "a call from the key_builder of a call": """
def build(function, args, kwargs):
    calls.append(1)
    return "k" if len(calls) > 2 else f"k{cached(1)}"
@cache(lock=lock, key_builder=build)
def cached(number):
    return number
assert cached(1) == 1
""",
    "a coroutine function's callbacks that call a plain one of its key": """
@cache(lock=lock, key_builder=same_key)
def plain():
    return "plain"
def condition(result):
    calls.append(plain())
    return True
def tags():
    calls.append(plain())
    return ["t"]
@cache(lock=lock, key_builder=same_key, condition=condition, tags=tags)
async def slow():
    calls.append(plain())
    return "slow"
assert asyncio.run(slow()) in ("plain", "slow")
assert set(calls) <= {"plain", "slow"} and calls
""",
    "a call from the callback of a hot key": """
from cachetronomy.core.access_frequency import register_callback
@cache(lock=lock)
def function(number):
    return number
def tell(key):
    calls.append((key, function(1), function(2)))
function(1)
register_callback(tell)
assert [function(1), cache.get(function.key_for(1))] == [1, 1]
assert calls == [(function.key_for(1), 1, 2)] * 2
register_callback(None)
""",
    "a signal handler while its thread computes": """
@cache(lock=lock)
def function(number):
    calls.append(1)
    if len(calls) == 1:
        os.kill(os.getpid(), signal.SIGUSR1)
        until(lambda: len(calls) > 1)
    return number
signal.signal(signal.SIGUSR1, lambda *_: function(1))
assert function(1) == 1 and len(calls) == 2
""",
    "a signal handler while its thread waits": """
go = threading.Event()
@cache(lock=lock, key_builder=same_key)
def function():
    calls.append(1)
    go.wait()
    return 1
@cache(lock=lock, key_builder=lambda *_: "other")
def other():
    return 2
def handle(*_):
    assert other() == 2
    go.set()
    assert function() == 1
    calls.append("handled")
signal.signal(signal.SIGUSR1, handle)
threads(function)
until(lambda: calls)
threading.Timer(0.1, os.kill, [os.getpid(), signal.SIGUSR1]).start()
assert function() == 1
threads.join()
assert calls == [1, "handled"]
""",
    "a signal handler on the loop's thread while a task computes": """
@cache(lock=lock, key_builder=same_key)
def plain():
    return 1
@cache(lock=lock, key_builder=same_key)
async def slow():
    os.kill(os.getpid(), signal.SIGUSR1)
    await asyncio.sleep(0.05)
    return 2
signal.signal(signal.SIGUSR1, lambda *_: calls.append(plain()))
assert asyncio.run(slow()) in (1, 2)
assert calls == [1]
""",
    "a plain call on the loop's thread while a task computes": """
@cache(lock=lock, key_builder=same_key)
async def slow():
    calls.append(1)
    await asyncio.sleep(0.05)
    return "slow"
@cache(lock=lock, key_builder=same_key)
def plain():
    return "plain"
async def main():
    task = asyncio.create_task(slow())
    while not calls:
        await asyncio.sleep(0)
    assert plain() == "plain"
    assert cache.get_or_compute("k", lambda: "direct", lock=lock) == "plain"
    assert await task == "slow"
asyncio.run(main())
""",
    "a plain call on the loop's thread while a task of it waits": """
@cache(lock=lock, key_builder=same_key)
async def slow():
    calls.append(1)
    await asyncio.sleep(0.1)
    return "slow"
@cache(lock=lock, key_builder=same_key)
def plain():
    return "plain"
async def main():
    tasks = [asyncio.create_task(slow()) for _ in range(3)]
    while not calls:
        await asyncio.sleep(0)
    assert plain() == "plain"
    assert set(await asyncio.gather(*tasks)) == {"slow"}
asyncio.run(main())
""",
    "a destructor while its thread computes": """
class Noisy:
    def __del__(self):
        calls.append(function(1))
noise = [Noisy()]
@cache(lock=lock)
def function(number):
    noise.clear()
    return number
assert function(1) == 1 and calls == [1]
""",
    "a destructor of a value that leaves memory": """
from dataclasses import dataclass
@dataclass
class Value:
    number: int
    def __del__(self):
        if len(calls) < 40:
            calls.append(self.number)
            function(self.number + 1)
small = Cachetronaut(sys.argv[1], max_items_in_memory=1)
@small(lock=lock)
def function(number: int) -> Value:
    return Value(number)
for number in range(0, 60, 3):
    assert function(number).number == number
assert len(calls) == 40
small.close()
""",
    "a destructor of a value that leaves memory while its key is computed": """
class Value(list):
    def __del__(self):
        if len(calls) < 20:
            calls.append(1)
            cache.get_or_compute("k", lambda: 7, lock=lock)
            cache.get_or_compute("other", lambda: 7, lock=lock)
def compute():
    cache.evict_all()
    value = Value([1])
    del value
    return 7
for _ in range(5):
    assert cache.get_or_compute("k", compute, lock=lock) == 7
    cache.delete("k")
assert calls
""",
    "a weakref's callback": """
class Thing:
    pass
@cache(lock=lock)
def function(number):
    thing = Thing()
    ref = weakref.ref(thing, lambda _: calls.append(function(number) if len(calls) < 3 else 0))
    calls.append("computes")
    del thing
    return number
assert function(1) == 1
assert 1 in calls, calls
""",
    "a collector's callback": """
@cache(lock=lock)
def function(number):
    calls.append(1)
    gc.collect()
    return number
def collected(phase, info):
    if len(calls) < 4:
        function(1)
function(0)  # What is imported late is here.
calls.clear()
gc.callbacks.append(collected)
assert function(1) == 1
gc.callbacks.remove(collected)
assert 2 <= len(calls) <= 4
""",
    "a handler of our log": """
class Handler(logging.Handler):
    def emit(self, record):
        calls.append(record.getMessage())
        if len(calls) < 4:
            assert function(1) == 1
logging.getLogger("cachetronomy").addHandler(Handler())
fails = False
@cache(lock=lock, ttl=0.001, stale_if_error=60)
def function(number):
    if fails:
        raise ValueError(number)
    return number
assert function(1) == 1
time.sleep(0.01)
fails = True
assert function(1) == 1
assert len(calls) == 4, calls
""",
}

ENDINGS = {
    "an exception that is about the process hands the lead on": """
for exception in (KeyboardInterrupt, SystemExit, GeneratorExit):
    threads = Threads()
    go = threading.Event()
    calls.clear()
    before = cache.stats()["misses"]
    @cache(lock=lock, key_builder=lambda *_: exception.__name__)
    def function():
        calls.append(1)
        if len(calls) == 1:
            go.wait()
            raise exception
        return len(calls)
    for _ in range(8):
        threads(function)
    missed(before + 8)
    go.set()
    results = threads.join()
    raised = [it for it in results if it != 2]
    assert len(raised) == 1 and type(raised[0]) is exception, results
    assert len(results) == 8 and len(calls) == 2
""",
    "an exception of get_or_compute is for those who wait and for nobody later": """
go = threading.Event()
def compute():
    calls.append(1)
    go.wait()
    raise ValueError(len(calls))
def ask():
    return cache.get_or_compute("k", compute, lock=lock)
for _ in range(8):
    threads(ask)
missed(8)
go.set()
assert [error.args for error in threads.join()] == [(1,)] * 8
threads = Threads()
threads(ask)
assert [error.args for error in threads.join()] == [(2,)]
""",
    "a shared exception's traceback stays short": """
go = threading.Event()
@cache(lock=lock)
def function():
    go.wait()
    raise ValueError
def length():
    try:
        function()
    except ValueError as error:
        # Nobody else adds to it meanwhile.
        with one_by_one:
            kept.append(error)
            count, tb = 0, error.__traceback__
            while tb is not None:
                count, tb = count + 1, tb.tb_next
            return count
one_by_one, kept = threading.Lock(), []
for _ in range(100):
    threads(length)
missed(100)
go.set()
lengths = threads.join()
assert len(lengths) == 100 and max(lengths) < 10, sorted(lengths)[-5:]
assert len({id(it) for it in kept}) <= 2
""",
    "a cancelled leader leaves the lead to one of those who wait": """
@cache(lock=lock)
async def slow():
    calls.append(1)
    await asyncio.sleep(60 if len(calls) == 1 else 0.05)
    return len(calls)
async def main():
    leader = asyncio.create_task(slow())
    while not calls:
        await asyncio.sleep(0.001)
    others = [asyncio.create_task(slow()) for _ in range(20)]
    await asyncio.sleep(0.05)
    leader.cancel()
    assert await asyncio.gather(*others) == [2] * 20
    try:
        await leader
    except asyncio.CancelledError:
        pass
    else:
        raise AssertionError
asyncio.run(main())
assert len(calls) == 2
""",
    "a cancelled one that waits disturbs nobody": """
@cache(lock=lock)
async def slow():
    calls.append(1)
    await asyncio.sleep(0.2)
    return 1
async def main():
    tasks = [asyncio.create_task(slow()) for _ in range(20)]
    while not calls:
        await asyncio.sleep(0.001)
    for task in tasks[5:15]:
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert results[:5] == results[15:] == [1] * 5
    assert all(isinstance(it, asyncio.CancelledError) for it in results[5:15])
asyncio.run(main())
assert len(calls) == 1
""",
    "a time-out of one that waits disturbs nobody": """
@cache(lock=lock)
async def slow():
    calls.append(1)
    await asyncio.sleep(0.3)
    return 1
async def main():
    leader = asyncio.create_task(slow())
    while not calls:
        await asyncio.sleep(0.001)
    for _ in range(3):
        try:
            await asyncio.wait_for(slow(), 0.02)
        except asyncio.TimeoutError:
            calls.append("late")
    assert await leader == await slow() == 1
asyncio.run(main())
assert calls == [1, "late", "late", "late"]
""",
    "a leader whose loop is closed leaves the lead to another thread": """
warnings.simplefilter("ignore", ResourceWarning)
@cache(lock=lock)
async def slow():
    calls.append(1)
    await asyncio.sleep(60 if len(calls) == 1 else 0)
    return len(calls)
def leave():
    loop = asyncio.new_event_loop()
    task = loop.create_task(slow())
    while not calls:
        loop.run_until_complete(asyncio.sleep(0.01))
    left.set()
    missed(2)
    task.cancel()
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
left = threading.Event()
threads(leave)
left.wait()
threads(lambda: asyncio.run(slow()))
assert threads.join() in ([None, 2], [2, None]), threads.results
""",
    "a leader that is thrown away with its loop leaves the lead": """
import io
@cache(lock=lock)
async def slow():
    calls.append(1)
    await asyncio.sleep(60 if len(calls) == 1 else 0)
    return len(calls)
def leave():
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda *_: None)  # Its words on a task that was destroyed.
    task = loop.create_task(slow())
    while not calls:
        loop.run_until_complete(asyncio.sleep(0.01))
    left.set()
    missed(2)
    loop.close()
left = threading.Event()
threads(leave)
left.wait()
waiting = threading.Thread(target=lambda: calls.append(("value", asyncio.run(slow()))))
waiting.start()
threads.join()
while waiting.is_alive():
    gc.collect()
    waiting.join(0.01)
assert calls[-1] == ("value", 2), calls
""",
    "threads wait for a task": """
@cache(lock=lock, key_builder=same_key)
async def slow():
    calls.append("task")
    await asyncio.sleep(0)
    missed(9)
    return 7
@cache(lock=lock, key_builder=same_key)
def plain():
    calls.append("thread")
    return 8
threads(lambda: asyncio.run(slow()))
until(lambda: calls)
for _ in range(8):
    threads(plain)
assert threads.join() == [7] * 9 and calls == ["task"]
""",
    "tasks of several loops wait for a thread": """
@cache(lock=lock, key_builder=same_key)
async def slow():
    calls.append("task")
    return 7
@cache(lock=lock, key_builder=same_key)
def plain():
    calls.append("thread")
    missed(13)
    return 8
async def several():
    return await asyncio.gather(*(slow() for _ in range(4)))
threads(plain)
until(lambda: calls)
for _ in range(3):
    threads(lambda: asyncio.run(several()))
results = threads.join()
assert sorted(map(str, results)) == ["8"] + ["[8, 8, 8, 8]"] * 3 and calls == ["thread"]
""",
    "Ctrl-C ends the wait and not the computation": """
go = threading.Event()
@cache(lock=lock)
def function():
    calls.append(1)
    go.wait()
    return 1
threads(function)
until(lambda: calls)
for ask in (function, lambda: cache.get_or_compute(function.key_for(), function, lock=lock)):
    threading.Timer(0.1, os.kill, [os.getpid(), signal.SIGINT]).start()
    start = time.monotonic()
    try:
        ask()
    except KeyboardInterrupt:
        assert time.monotonic() - start < 5
    else:
        raise AssertionError
go.set()
assert threads.join() == [1] and function() == 1 and calls == [1]
""",
    "Ctrl-C ends the wait for another process": """
import subprocess
holder = subprocess.Popen([sys.executable, "-c", '''
import sys, time
from cachetronomy import Cachetronaut
cache = Cachetronaut(sys.argv[1])
cache.get_or_compute("k", lambda: [print("computes", flush=True), time.sleep(60)], lock="process")
''', sys.argv[1]], stdout=subprocess.PIPE)
holder.stdout.readline()
cached = cache(lock="process", key_builder=same_key)(lambda: 1)
for ask in (cached, lambda: cache.get_or_compute("k", lambda: 1, lock="process")):
    threading.Timer(0.1, os.kill, [os.getpid(), signal.SIGINT]).start()
    try:
        ask()
    except KeyboardInterrupt:
        calls.append(1)
assert calls == [1, 1]
holder.kill()
holder.wait()
holder.stdout.close()
""",
    "threads that wait or compute do not hold up the exit": """
@cache(lock=lock)
def function():
    calls.append(1)
    while True:
        time.sleep(0.001)
@cache(lock=lock)
async def coroutine():
    calls.append(1)
    while True:
        await asyncio.sleep(0.001)
def run():
    asyncio.run(coroutine())
def direct():
    cache.get_or_compute("k", function.__wrapped__, lock=lock)
for work in (function, run, direct) * 3:
    threading.Thread(target=work, daemon=True).start()
missed(9)
class Late:
    def __del__(self):
        time.sleep(0.2)  # The interpreter is on its way out; the threads find that it is.
late = Late()
late.itself = late
""",
    "a child that is forked by a thread that computes computes for itself": """
warnings.simplefilter("ignore", DeprecationWarning)  # Of forks beside threads.
@cache(key_builder=same_key)
def function():
    calls.append(1)
    if len(calls) == 1:
        child = os.fork()
        if child == 0:
            code = 1
            try:
                threads(function)
                assert threads.join() == [2]
                code = 0
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    return len(calls)
assert function() == 1
""",
}

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals")

LOCKS = pytest.mark.parametrize("lock", ["thread", "process"])


@LOCKS
@pytest.mark.parametrize("program", REENTRANT)
def test_nobody_waits_for_itself(
    db_path: Path, run_python: Callable[..., CompletedProcess[str]], program: str, lock: str
) -> None:
    done = run_python(PRELUDE + REENTRANT[program], db_path, json.dumps(lock))
    assert (done.stdout, done.stderr) == ("", "")


@LOCKS
@pytest.mark.parametrize("program", ENDINGS)
def test_those_who_wait_go_on(
    db_path: Path, run_python: Callable[..., CompletedProcess[str]], program: str, lock: str
) -> None:
    done = run_python(PRELUDE + ENDINGS[program], db_path, json.dumps(lock))
    assert (done.stdout, done.stderr) == ("", "")
