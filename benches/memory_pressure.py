"""Shows that eviction under memory pressure keeps a process alive that the kernel kills without it.

Two children in turn write more values than a control group's limit has room for, into a cache
whose memory tier has no cap, and read some hot keys again and again: one evicts when memory runs
short and has to finish, the other does not and has to be killed. Exit code 0 if so, 1 if not, 77
("skipped: ...") where no control group with a limit can be made; it takes root, or a container of
its own. With --stand-in a plain dict takes the cache's place, to try this script itself.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Protocol

MB = 1 << 20
LIMIT = 256 * MB
FREE_TARGET_MB = 64
VALUE_BYTES = MB // 4
VALUES = 2 * LIMIT // VALUE_BYTES
# What is written between two looks at the memory has to be less than the target.
MB_PER_SECOND = FREE_TARGET_MB / 2
HOT_KEYS = [f"hot-{number}" for number in range(20)]
SKIPPED = 77
TIMEOUT_S = 300


class Group:
    """A control group with a limit of memory and no swap, of either version."""

    # Where it is made, and the names of its files.
    VERSIONS = (
        (
            "/sys/fs/cgroup/memory",
            "memory.limit_in_bytes",
            "memory.memsw.limit_in_bytes",
            "memory.oom_control",
            "memory.usage_in_bytes",
            ("total_inactive_file", "total_active_file"),
        ),
        (
            "/sys/fs/cgroup",
            "memory.max",
            "memory.swap.max",
            "memory.events",
            "memory.current",
            ("inactive_file", "active_file"),
        ),
    )

    def __init__(self, path: Path) -> None:
        """Take the group at `path`, which was made by `create`."""
        self.path = path
        names = next(names for names in self.VERSIONS if (path / names[1]).exists())
        _, self.limit, self.swap, self.events, self.usage, self.caches = names

    @classmethod
    def create(cls) -> Group:
        """Make a group; raises `OSError` if none can be made here."""
        error = OSError("there are no control groups")
        for root, limit, *_ in cls.VERSIONS:
            path = Path(root, f"cachetronomy-pressure-{os.getpid()}")
            try:
                path.mkdir()
            except OSError as problem:
                error = problem
                continue
            try:
                # Made in version 2 without its memory controller, it has no such file.
                (path / limit).stat()
                group = cls(path)
                group.set_limit()
            except OSError as problem:
                error = problem
                path.rmdir()
                continue
            return group
        raise error

    def set_limit(self) -> None:
        """Limit memory, and keep the group out of the swap."""
        (self.path / self.limit).write_text(str(LIMIT))
        if (self.path / self.swap).exists():
            # Version 1 counts memory and swap together.
            both = str(LIMIT) if "memsw" in self.swap else "0"
            (self.path / self.swap).write_text(both)

    def enter(self) -> None:
        """Move this process into the group."""
        (self.path / "cgroup.procs").write_text(str(os.getpid()))

    def numbers(self, name: str) -> dict[str, int]:
        """Read a file of lines `name number`."""
        lines = (self.path / name).read_text().splitlines()
        return {key: int(value) for key, value in map(str.split, lines)}

    def kills(self) -> int:
        """Count the processes that the kernel killed for want of memory."""
        return self.numbers(self.events)["oom_kill"]

    def available(self) -> int:
        """Bytes that can still be taken: page cache is given back before anything is killed."""
        cached = sum(self.numbers("memory.stat")[name] for name in self.caches)
        return LIMIT - int((self.path / self.usage).read_text()) + cached

    def remove(self) -> None:
        """Remove the group; a process that was just killed may hold it for a moment."""
        for _ in range(100):
            with contextlib.suppress(OSError):
                return self.path.rmdir()
            time.sleep(0.05)
        return self.path.rmdir()


class Load(Protocol):
    """What the load runs against: the cache, or what stands in for it."""

    def set(self, key: str, value: bytes) -> object:
        """Keep a value."""

    def get(self, key: str) -> object:
        """Return a value, counting the access."""

    def memory_keys(self) -> list[str]:
        """Return the keys in memory."""

    def evictions(self) -> int:
        """Count the keys that were logged as evicted under memory pressure."""

    def close(self) -> None:
        """Let go of everything."""


class Cache:
    """The cache with its memory tier uncapped."""

    def __init__(self, path: Path, *, evict: bool) -> None:
        """Open a cache on a new file."""
        from cachetronomy import Cachetronaut, Profile  # noqa: PLC0415 - not for the stand-in

        profile = Profile(
            name="pressure",
            memory_based_eviction=evict,
            free_memory_target=FREE_TARGET_MB,
            memory_cleanup_interval=1,
        )
        self.cache = Cachetronaut(db_path=path, profile=profile, max_items_in_memory=None)
        self.set = self.cache.set
        self.get = self.cache.get
        self.memory_keys = self.cache.memory_keys
        self.close = self.cache.close

    def evictions(self) -> int:
        """Count the lines of the log that name memory pressure."""
        lines = self.cache.eviction_logs(limit=10 * VALUES)
        return sum(line.reason == "memory_eviction" for line in lines)


class StandIn:
    """A dict that gives up its coldest keys, or does not."""

    def __init__(self, group: Group, *, evict: bool) -> None:
        """Start to look at the group's memory each second."""
        self.group = group
        self.values: dict[str, bytes] = {}
        self.counts: Counter[str] = Counter()
        self.evicted = 0
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._watch, daemon=True)
        if evict:
            self.thread.start()

    def _watch(self) -> None:
        while not self.stop.wait(1):
            missing = FREE_TARGET_MB * MB - self.group.available()
            for key in sorted(self.values.copy(), key=self.counts.__getitem__):
                if missing <= 0:
                    break
                missing -= len(self.values.pop(key))
                self.evicted += 1

    def set(self, key: str, value: bytes) -> None:
        """Keep a value."""
        self.values[key] = value

    def get(self, key: str) -> bytes | None:
        """Return a value, counting the access."""
        self.counts[key] += 1
        return self.values.get(key)

    def memory_keys(self) -> list[str]:
        """Return the keys in memory."""
        return list(self.values)

    def evictions(self) -> int:
        """Count the evicted keys."""
        return self.evicted

    def close(self) -> None:
        """Stop looking."""
        self.stop.set()


def run_load(load: Load) -> dict[str, int]:
    """Write all values at an even pace, reading hot keys in between; return what is left."""
    for key in HOT_KEYS:
        load.set(key, os.urandom(VALUE_BYTES))
    started = time.monotonic()
    for number in range(VALUES):
        load.set(f"cold-{number}", os.urandom(VALUE_BYTES))
        load.get(HOT_KEYS[number % len(HOT_KEYS)])
        ahead = number * VALUE_BYTES / (MB_PER_SECOND * MB) - (time.monotonic() - started)
        if ahead > 0:
            time.sleep(ahead)
    keys = set(load.memory_keys())
    report = {
        "entries": len(keys),
        "hot": len(keys.intersection(HOT_KEYS)),
        "evictions": load.evictions(),
    }
    load.close()
    return report


def child(path: Path, *, evict: bool, stand_in: bool) -> None:
    """Enter the group, run the load and print the report."""
    group = Group(path)
    group.enter()
    if stand_in:
        print(json.dumps(run_load(StandIn(group, evict=evict))))
        return
    # A file in a file system that lives in memory could not be given back.
    disk = "/var/tmp" if Path("/var/tmp").is_dir() else None  # noqa: S108 - only a default folder
    with tempfile.TemporaryDirectory(dir=disk) as folder:
        print(json.dumps(run_load(Cache(Path(folder, "pressure.db"), evict=evict))))


def run_child(group: Group, *, evict: bool, stand_in: bool) -> tuple[int, dict[str, int]]:
    """Run the load in a process of its own; return its exit code and its report."""
    command = [sys.executable, __file__, "--child", str(group.path)]
    command += ["--evict"] * evict + ["--stand-in"] * stand_in
    done = subprocess.run(  # noqa: S603 - this very script
        command, stdout=subprocess.PIPE, timeout=TIMEOUT_S, check=False
    )
    return done.returncode, json.loads(done.stdout or b"{}")


def judge(group: Group, *, stand_in: bool) -> bool:
    """Run both children and print the verdict."""
    code, report = run_child(group, evict=True, stand_in=stand_in)
    print(f"with eviction: exit code {code}, {report or 'no report'}")
    before = group.kills()
    lives = code == 0 and before == 0
    evicts = lives and report["evictions"] > 0
    keeps_hot = lives and report["hot"] == len(HOT_KEYS)

    code, _ = run_child(group, evict=False, stand_in=stand_in)
    kills = group.kills() - before
    print(f"without eviction: exit code {code}, killed by the kernel: {kills}")
    dies = code == -signal.SIGKILL and kills > 0

    print(
        f"verdict: with eviction the process {'lives' if lives else 'DOES NOT LIVE'}, "
        f"{'evicts' if evicts else 'DOES NOT EVICT'} and "
        f"{'keeps' if keeps_hot else 'DOES NOT KEEP'} its hot keys; "
        f"without it is {'killed' if dies else 'NOT KILLED'}"
    )
    return evicts and keeps_hot and dies


def main() -> int:
    """Run the proof, or one of its children."""
    parser = argparse.ArgumentParser(description="Eviction under memory pressure, under a limit.")
    parser.add_argument("--stand-in", action="store_true", help="a dict instead of the cache")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--evict", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options.child, evict=options.evict, stand_in=options.stand_in)
        return 0
    try:
        group = Group.create()
    except OSError as error:
        print(f"skipped: needs a writable memory cgroup ({error})")
        return SKIPPED
    try:
        return 0 if judge(group, stand_in=options.stand_in) else 1
    finally:
        group.remove()


if __name__ == "__main__":
    sys.exit(main())
