"""What clearing by tag and sweeping cost in a small file and in a large one."""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from cachetronomy import Cachetronaut
from cachetronomy._core import ManualClock

HIT = 1_000  # entries that each operation removes
ROUNDS = 5
CHUNK = 10_000
DAY = 86_400


def fill(cache: Cachetronaut, total: int) -> None:
    """Write so many entries, each with a tag of its own hundred."""
    for start in range(0, total, CHUNK):
        for part in range(start, start + CHUNK, CHUNK // 10):
            names = range(part, part + CHUNK // 10)
            values = {f"key {number}": {"number": number, "text": "x" * 100} for number in names}
            cache.set_many(values, ttl=3_650 * DAY, tags=["all", f"part {part}"])


def scattered(total: int, name: str) -> dict[str, object]:
    """Keys that lie all over the index of keys."""
    step = total // HIT
    return {f"key {number}{name}": {"number": number} for number in range(0, total, step)}


def measure(total: int) -> dict[str, float]:
    """Return the milliseconds of each operation on a file of `total` entries, medians."""
    clock = ManualClock()
    with tempfile.TemporaryDirectory() as folder:
        cache = Cachetronaut(Path(folder) / "scale.db", _clock=clock)
        fill(cache, total)
        times: dict[str, list[float]] = {"clear_by_tags": [], "exact": [], "clear_expired": []}
        for number in range(ROUNDS):
            cache.set_many(scattered(total, f" any {number}"), tags=["rare", "all"])
            cache.set_many(scattered(total, f" exact {number}"), tags=["all", "rarer"])
            cache.set_many(scattered(total, f" brief {number}"), ttl=60, tags=["all"])
            cache.close()
            cache = Cachetronaut(Path(folder) / "scale.db", _clock=clock)

            start = time.perf_counter()
            removed = len(cache.clear_by_tags(["rare"]))
            times["clear_by_tags"].append(time.perf_counter() - start)
            start = time.perf_counter()
            exact = len(cache.clear_by_tags(["rarer", "all"], exact_match=True))
            times["exact"].append(time.perf_counter() - start)
            clock.advance(61)
            start = time.perf_counter()
            expired = len(cache.clear_expired())
            times["clear_expired"].append(time.perf_counter() - start)
            if not removed == exact == expired == HIT:
                message = f"removed {removed}, {exact} and {expired} of {HIT}"
                raise AssertionError(message)
        if len(cache) != total:
            message = f"{len(cache)} of {total} entries are left"
            raise AssertionError(message)
        cache.close()
    return {name: statistics.median(one) * 1e3 for name, one in times.items()}


def main() -> None:
    """Print a table: an operation a line, a size of the file a column."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sizes", nargs="*", type=int, default=[100_000, 1_000_000])
    sizes = parser.parse_args().sizes
    results = [measure(size) for size in sizes]
    print(f"milliseconds to remove {HIT:,} entries, medians of {ROUNDS}, from a file of")
    print(f"{'':>16}" + "".join(f"{size:>12,}" for size in sizes))
    for name in results[0]:
        print(f"{name:>16}" + "".join(f"{result[name]:>12.1f}" for result in results))


if __name__ == "__main__":
    main()
