"""Analyse Python's whole standard library three times, to see what a two-tier cache is worth.

    python examples/stdlib_report.py            the first run is slow, the next one resumes
    python examples/stdlib_report.py --fresh    start from an empty cache

Pass 1 computes everything, in a process of its own. Pass 2 is a new process: all it has is the
SQLite file. Pass 3 is that second process again, now with live objects in memory. Kill it at any
moment, `kill -9` too: what was computed is in the file, and the next start goes on from there.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import heapq
import json
import os
import re
import signal
import subprocess
import sys
import sysconfig
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict

from cachetronomy import Cachetronaut

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

STDLIB = Path(sysconfig.get_paths()["stdlib"])
NOT_STDLIB = {"site-packages", "dist-packages", "__pycache__"}
DAY = 86_400  # seconds
PASSES = {1: "cold", 2: "from the store", 3: "from memory"}
COUNTED = ("files", "skipped", "lines", "functions", "classes")
CACHE_COUNTERS = ("memory_hits", "store_hits", "misses", "seconds_saved")


class Source(NamedTuple):
    """One file to analyse. These three are the cache key: a file that changes gets a new one."""

    path: str
    mtime_ns: int
    size: int


class Facts(TypedDict):
    """What one file, or a package of many, contains. Comes back as it is: tuples stay tuples."""

    counts: dict[str, int]  # of everything in COUNTED
    longest: list[tuple[int, str]]  # the five longest functions: lines, where
    imports: dict[str, int]  # package: number of files that import it


# The work itself, up to merge(), knows nothing of caching.
def list_sources(limit: int | None) -> list[Source]:
    """Find every module of the running Python's standard library, in the same order each time."""
    paths: list[Path] = []
    for folder, subfolders, names in os.walk(STDLIB):
        subfolders[:] = [name for name in subfolders if name not in NOT_STDLIB]  # stay out of them
        paths += [Path(folder, name) for name in names if name.endswith(".py")]
    stats = [(path, path.stat()) for path in sorted(filter(Path.is_file, paths))[:limit]]
    return [Source(str(path), stat.st_mtime_ns, stat.st_size) for path, stat in stats]


def short(path: str) -> str:
    """Shorten a path: `asyncio/events.py`, wherever the standard library is."""
    return Path(os.path.relpath(path, STDLIB)).as_posix()


def read_facts(path: str) -> Facts:
    """Parse one file. If it is no valid Python (test data, on purpose), that is the result."""
    source = Path(path).read_bytes()
    facts = Facts(counts=dict.fromkeys(COUNTED, 0), longest=[], imports={})
    facts["counts"]["files"] = 1
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes and the like are not our business
            tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        facts["counts"]["skipped"] = 1
        return facts
    facts["counts"]["lines"] = len(source.splitlines())
    todo: list[tuple[ast.AST, str]] = [(tree, f"{short(path)}: ")]
    while todo:  # a list, not recursion: deeply nested code cannot exhaust Python's stack
        node, scope = todo.pop()
        scope = count_node(node, scope, facts)
        todo += [(child, scope) for child in ast.iter_child_nodes(node)]
    facts["longest"] = heapq.nlargest(5, facts["longest"])
    return facts


def count_node(node: ast.AST, scope: str, facts: Facts) -> str:
    """Add one node of the syntax tree to `facts`. Returns the scope its children live in."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        facts["counts"]["functions"] += 1
        length = (node.end_lineno or node.lineno) - node.lineno + 1
        facts["longest"].append((length, scope + node.name))
        return f"{scope}{node.name}."
    if isinstance(node, ast.ClassDef):
        facts["counts"]["classes"] += 1
        return f"{scope}{node.name}."
    if isinstance(node, ast.Import):
        facts["imports"].update({alias.name.split(".")[0]: 1 for alias in node.names})
    elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
        facts["imports"][node.module.split(".")[0]] = 1
    return scope


def merge(parts: Iterable[Facts]) -> Facts:
    """Add up many, in a new object: what comes out of a cache is shared, so never change it."""
    counts, longest, imports = Counter[str](), list[tuple[int, str]](), Counter[str]()
    for part in parts:
        counts.update(part["counts"])
        longest += part["longest"]
        imports.update(part["imports"])
    return Facts(counts=dict(counts), longest=heapq.nlargest(5, longest), imports=dict(imports))


def cached_functions(
    cache: Cachetronaut, packages: dict[str, list[Source]]
) -> tuple[Callable[[str, int, int], Facts], Callable[[str], Facts]]:
    """Make the two functions the passes call: facts of one file, and of one package."""
    # Instead of the many sources of a package, its key holds a digest of them.
    fingerprints = {
        name: hashlib.sha256(repr(sources).encode()).hexdigest()[:16]
        for name, sources in packages.items()
    }

    @cache(ttl=DAY, tags=["stdlib"])
    def analyse(path: str, mtime_ns: int, size: int) -> Facts:  # noqa: ARG001 - they are for the key
        return read_facts(path)

    @cache(ttl=DAY, tags=["stdlib"], ignore=("sources",))
    def summarise(package: str, fingerprint: str, sources: list[Source]) -> Facts:  # noqa: ARG001 - two are for the key
        # A cached function that calls another: no file is read twice.
        return merge(analyse(*source) for source in sources)

    return analyse, lambda name: summarise(name, fingerprints[name], packages[name])


def run_pass(cache: Cachetronaut, number: int, sources: list[Source]) -> dict[str, Any]:
    """Do all of the work once. Nothing in here asks, or knows, whether something is cached."""
    names, packages = [short(source.path) for source in sources], dict[str, list[Source]]()
    for name, source in zip(names, sources, strict=True):
        packages.setdefault(name.split("/")[0].removesuffix(".py"), []).append(source)
    analyse, summarise = cached_functions(cache, packages)
    progress = Progress(f"pass {number} of {len(PASSES)}", len(sources))
    before, start = cache.stats(), time.perf_counter()

    facts = []
    for source in sources:
        facts.append(analyse(*source))
        progress.step()
    found = cache.stats()["store_hits"] - before["store_hits"]

    total = merge(summarise(name) for name in packages)
    # The code behind the imports of each file: asks for the same few packages again and again.
    behind = []
    for name, each in zip(names, facts, strict=True):
        imported = [summarise(package) for package in each["imports"] if package in packages]
        behind.append((sum(one["counts"]["lines"] for one in imported), name))

    seconds, after = time.perf_counter() - start, cache.stats()
    counts = {name: after[name] - before[name] for name in CACHE_COUNTERS}
    hits = counts["memory_hits"] + counts["store_hits"]
    imports = sorted(total["imports"].items(), key=lambda item: (-item[1], item[0]))
    return {
        "name": PASSES[number],
        "seconds": seconds,
        **counts,
        "hit_ratio": hits / (hits + counts["misses"]),
        "files_found_in_store": found,
        "report": {**total["counts"], "packages": len(packages), "longest": total["longest"],
                   "imports": imports[:10], "heaviest": max(behind)},
    }  # fmt: skip


class Progress:
    """A bar on a terminal; in a log file, a line at every tenth."""

    def __init__(self, label: str, total: int) -> None:
        """Show nothing yet."""
        self.label, self.total, self.done, self.shown = label, total, 0, 0

    def step(self) -> None:
        """One more is done. Prints only when there is something new to see."""
        self.done += 1
        percent = 100 * self.done // self.total
        is_bar = sys.stderr.isatty()
        steps = percent if is_bar else percent // 10
        if steps == self.shown:
            return
        self.shown = steps
        line = f"{self.label}: {self.done}/{self.total} files"
        if is_bar:
            line = f"\r{self.label} [{'#' * (percent // 4):25}] {percent:3} %"
        end = "" if is_bar and self.done < self.total else "\n"
        print(line, end=end, file=sys.stderr, flush=True)


def work(args: argparse.Namespace) -> dict[str, Any]:
    """Be a child process: open the cache, run its passes, close."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # see start()
    sources, numbers = list_sources(args.limit), (1,) if args.process == 1 else (2, 3)
    with Cachetronaut(db_path=str(args.db), max_items_in_memory=10_000) as cache:
        if args.fresh and args.process == 1:
            cache.clear_by_tags("stdlib")
        passes = [run_pass(cache, number, sources) for number in numbers]
        stats, hot_keys = cache.stats(), cache.get_hot_keys(limit=5)
    sizes = {"store_keys": stats["store_keys"], "store_bytes": stats["store_bytes"]}
    return {"passes": passes, "hot_keys": hot_keys, **sizes}


def start(process: int) -> dict[str, Any]:
    """Run this file again as a child process, and return the figures it prints."""
    command = [sys.executable, __file__, *sys.argv[1:], f"--process={process}"]
    # A terminal sends Ctrl-C to parent and child. The child inherits that it ignores it, and gets
    # SIGTERM from us instead: exactly one signal, which cannot interrupt its own cleaning up.
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)  # noqa: S603 - this file
    signal.signal(signal.SIGINT, handler)
    try:
        output = child.communicate()[0]
    except KeyboardInterrupt:
        child.terminate()
        child.wait()
        raise
    if child.returncode:
        sys.exit(f"process {process} ended with code {child.returncode}; start again to resume")
    return dict(json.loads(output))


def run_all() -> dict[str, Any]:
    """Run both processes, one after the other, and put their figures together."""
    first, second = start(1), start(2)
    passes = first.pop("passes") + second.pop("passes")
    reports = [each.pop("report") for each in passes]
    if any(report != reports[0] for report in reports):
        sys.exit("the passes do not agree: the cache has returned something that was not stored")
    resumed = passes[0]["files_found_in_store"]
    return {"resumed": resumed, "passes": passes, **second, "report": reports[0]}


def readable(key: str) -> str:
    """Shorten a key: `summarise('re')`, without its module and its other arguments."""
    text = re.sub(r"^.*?(\w+)\(\w+='([^']*)'.*$", r"\1('\2')", key)
    return text.replace(f"{STDLIB}{os.sep}", "")[:70]


def print_report(report: dict[str, Any]) -> None:
    """Print the result of the analysis."""
    print(f"\nThe standard library of Python {sys.version.split()[0]}")
    print(
        "  {files:,} files in {packages:,} packages ({skipped} skipped: not parseable)\n"
        "  {lines:,} lines, {functions:,} functions, {classes:,} classes".format(**report)
    )
    print("\n  longest functions")
    for lines, where in report["longest"]:
        print(f"  {lines:7,} lines  {where}")
    print("\n  most used imports, and by how many files")
    used = [f"{name} {count:,}" for name, count in report["imports"]]
    print(f"    {', '.join(used[:5])},\n    {', '.join(used[5:])}")
    print("\n  most code behind its imports\n  {:7,} lines  {}".format(*report["heaviest"]))


def print_figures(figures: dict[str, Any]) -> None:
    """Print what the cache did for it."""
    passes, files = figures["passes"], figures["report"]["files"]
    print("\n  pass              seconds  speed-up  memory hits  store hits  misses  ratio   saved")
    for number, each in enumerate(passes, 1):
        name = "resumed" if number == 1 and figures["resumed"] else each["name"]
        speed_up = f"{passes[0]['seconds'] / each['seconds']:,.0f} x"
        print(f"  {number} {name:14} {each['seconds']:8.3f} {speed_up:>9}", end="")
        print(f" {each['memory_hits']:12,} {each['store_hits']:11,} {each['misses']:7,}", end="")
        print(f" {each['hit_ratio']:6.1%} {each['seconds_saved']:5,.0f} s")
    size = f"{figures['store_keys']:,} entries, {figures['store_bytes'] / 1e6:,.1f} MB"
    print("\n  pass 1 has hits too: most packages are imported by many files")
    print("  saved: what the hits would have cost to compute, as measured back then")
    print(f"  resumed: {figures['resumed']:,} of {files:,} files were already in the store")
    print(f"  in the store now: {size}")
    print("\n  hottest keys, over every run so far")
    for key, count in figures["hot_keys"]:
        print(f"  {count:7,} hits   {readable(key)}")


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--db", type=Path, default=Path(".cache", "demo.db"), help="the cache")
    parser.add_argument("--fresh", action="store_true", help="start with an empty cache")
    parser.add_argument("--limit", type=int, metavar="N", help="analyse the first N files only")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--process", type=int, choices=(1, 2), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.limit is not None and args.limit < 1:
        parser.error("--limit must be at least 1")
    return args


def main() -> int:
    """Be the parent, or with --process one of its children."""
    args = parse_args()
    try:
        figures = work(args) if args.process else run_all()
    except KeyboardInterrupt:
        if not args.process:
            print("\nstopped; start again to resume", file=sys.stderr)
        return 130  # what shells use for Ctrl-C
    if args.process or args.json:
        print(json.dumps(figures), flush=True)
    else:
        print_report(figures["report"])
        print_figures(figures)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BrokenPipeError:  # whoever read our output is gone: there is nobody left to tell
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
