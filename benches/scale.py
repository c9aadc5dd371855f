"""What clearing by tag and sweeping cost in a small file and in a large one.

Keys that lie side by side share the pages of the indexes, whatever the size of the file. Keys that
are scattered over all others have a page each in a large file, and a few to a page in a small one:
what may grow is the number of pages that are changed, up to one for each entry that is removed.
"""

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


def some(total: int, name: str, *, scattered: bool) -> dict[str, object]:
    """Entries to be removed again: all over the index of keys, or side by side."""
    step = total // HIT if scattered else 1
    numbers = range(0, HIT * step, step)
    return {
        f"key {number}{name}" if scattered else f"z{name} {number}": number for number in numbers
    }


def measure(total: int) -> dict[str, float]:
    """Return the milliseconds of each operation on a file of `total` entries."""
    clock = ManualClock()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "scale.db"
        with Cachetronaut(path, _clock=clock) as cache:
            fill(cache, total)
        return {
            f"{name}, {'scattered' if scattered else 'side by side'}": milliseconds
            for scattered in (False, True)
            for name, milliseconds in removals(path, clock, total, scattered=scattered).items()
        }


def removals(path: Path, clock: ManualClock, total: int, *, scattered: bool) -> dict[str, float]:
    """Remove in three ways, in a client that was just opened; medians in milliseconds."""
    times: dict[str, list[float]] = {"clear_by_tags": [], "exact": [], "clear_expired": []}
    for number in range(ROUNDS):
        with Cachetronaut(path, _clock=clock) as cache:
            for name, tags, ttl in (
                (" any", ["rare", "all"], None),
                (" exact", ["all", "rarer"], None),
                (" brief", ["all"], 60),
            ):
                entries = some(total, f"{name} {number}", scattered=scattered)
                cache.set_many(entries, ttl=ttl, tags=tags)
        with Cachetronaut(path, _clock=clock) as cache:
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
            if not removed == exact == expired == HIT or len(cache) != total:
                message = f"removed {removed}, {exact} and {expired} of {HIT}, left {len(cache)}"
                raise AssertionError(message)
    return {name: statistics.median(one) * 1e3 for name, one in times.items()}


def main() -> None:
    """Print a table: an operation a line, a size of the file a column."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sizes", nargs="*", type=int, default=[100_000, 1_000_000])
    sizes = parser.parse_args().sizes
    results = [measure(size) for size in sizes]
    print(f"milliseconds to remove {HIT:,} entries, medians of {ROUNDS}, from a file of")
    print(f"{'':>28}" + "".join(f"{size:>12,}" for size in sizes))
    for name in results[0]:
        print(f"{name:>28}" + "".join(f"{result[name]:>12.1f}" for result in results))


if __name__ == "__main__":
    main()
