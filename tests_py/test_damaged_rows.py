"""One damaged row is a miss for its key, told of once; every other row is served."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any, Final

import pytest
from cachetronomy import MISS, Cachetronaut, Profile
from cachetronomy._core import ManualClock
from cachetronomy.core.eviction import TTLEvictionThread
from cachetronomy.core.types.schemas import CacheEntry
from conftest import PATIENCE, environment, short_id

BAD: Final = "bad"
FOREVER: Final = "9999-12-31T23:59:59.999999+00:00"
# Key: value, tags, profile. The damaged row is among neighbours that share its tag or its profile.
# One more entry, "old", has expired.
ROWS: dict[str, tuple[Any, list[str], str]] = {
    "a": ({"n": [1]}, ["t"], "default"),
    BAD: ("a payload of some length", ["t", BAD], "p"),
    "c": ([1, 2, "three"], ["t", "c"], "p"),
    "d": (4, [], "default"),
}
NEIGHBOURS = {key: row for key, row in ROWS.items() if key != BAD}
ALL: Final = frozenset(NEIGHBOURS)
TAGGED: Final = frozenset("ac")


class Look(IntEnum):
    """How far an entry point looks into a row, and how far one must to see its damage."""

    KEY = 0  # and deadline and tags
    ROW = 1  # all columns but the payload
    DATA = 2  # the payload and its checksum too
    VALUE = 3  # what the payload stands for


# What is done to the row, in a table without the original's NOT NULL.
PAYLOAD = {
    "payload cut off": "data = substr(data, 1, length(data) - 3)",
    "payload empty": "data = x''",
    "payload not UTF-8": "data = x'22ff22'",
    "payload MessagePack, name json": "data = x'93010203'",
    "payload JSON, name msgpack": "fmt = 'msgpack'",
    "payload deep": "data = CAST(replace(hex(zeroblob(50000)), '00', '[') AS BLOB)",
    "format unknown": "fmt = 'pickle'",
    "format empty": "fmt = ''",
}
STORAGE = {
    "payload an integer": "data = 17",
    "payload a real": "data = 1.5",
    "payload NULL": "data = NULL",
    "payload text beyond bytes": "fmt = 'msgpack', data = char(26481)",
}
CHECKSUM = {"checksum wrong": "checksum = checksum + 1"}
COLUMN = {
    "format a blob": "fmt = x'6a736f6e'",
    "format not UTF-8": "fmt = CAST(x'ff' AS TEXT)",
    "format NULL": "fmt = NULL",
    "tags no JSON": "tags = 'no json'",
    "tags an object": 'tags = \'{"t": "bad"}\'',
    "tags a number": "tags = 5",
    "tags a blob": "tags = CAST(tags AS BLOB)",
    "tags deep": "tags = replace(hex(zeroblob(5000)), '00', '[')",
    "tags NULL": "tags = NULL",
    "version text": "version = 'one'",
    "version 0": "version = 0",
    "version fractional": "version = 1.5",
    "version a blob": "version = x'01'",
    "version NULL": "version = NULL",
    "profile a blob": "saved_by_profile = x'70'",
    "profile not UTF-8": "saved_by_profile = CAST(x'ff' AS TEXT)",
    "profile NULL": "saved_by_profile = NULL",
    "date impossible": "expire_at = '2999-02-30T00:00:00.000000+00:00'",
    "date of five digits": "expire_at = '29999-01-01T00:00:00.000000+00:00'",
}
DATE = {
    "date garbage": "expire_at = 'garbage'",
    "date empty": "expire_at = ''",
    "date before all": "expire_at = '-001-01-01T00:00:00.000000+00:00'",
    "date an integer": "expire_at = 32503680000",
    "date a real": "expire_at = 32503680000.5",
    "date a blob": "expire_at = CAST(expire_at AS BLOB)",
    "date NULL": "expire_at = NULL",
}
KEY = {
    "key a blob": "key = CAST(key AS BLOB)",
    "key not UTF-8": "key = CAST(x'ff' AS TEXT)",
    "key NULL": "key = NULL",
}
KINDS = PAYLOAD | STORAGE | CHECKSUM | COLUMN | DATE | KEY
# In a file of ours; in one that the original made, whose rows have no checksum and no index of
# their tags.
CASES = [("ours", kind) for kind in KINDS]
CASES += [("original", kind) for kind in PAYLOAD]
CASES += [
    ("original", kind)
    for kind in (
        *("payload an integer", "format a blob", "version text", "profile a blob"),
        *("tags no JSON", "tags an object", "tags a blob"),
        *("date impossible", "date garbage", "date an integer", "key a blob", "key NULL"),
    )
]
# One for each way of being met.
SAMPLES = [("original", "payload cut off")]
SAMPLES += [
    ("ours", kind)
    for kind in (
        *("payload cut off", "payload an integer", "version 0", "tags no JSON", "profile a blob"),
        *("date impossible", "date garbage", "date an integer", "key NULL"),
    )
]


def shows(origin: str, kind: str) -> Look:
    """Say how far one must look into the row to see its damage."""
    if kind in DATE:
        return Look.KEY
    if kind in PAYLOAD:
        return Look.DATA if origin == "ours" else Look.VALUE
    return Look.DATA if kind in STORAGE | CHECKSUM else Look.ROW


def damage(kind: str) -> str:
    """Write the SQL that damages the row."""
    return f"UPDATE cache SET {KINDS[kind]} WHERE key = 'bad'"


# Changes of a neighbour that the comparison has to see.
MUTATIONS = {
    "value": "UPDATE cache SET data = '5', checksum = NULL WHERE key = 'd'",
    "format": "UPDATE cache SET fmt = 'msgpack' WHERE key = 'a'",
    "row": "DELETE FROM cache WHERE key = 'c'",
    "date": "UPDATE cache SET expire_at = '2020-01-01T00:00:00+00:00' WHERE key = 'a'",
    "date, a little": "UPDATE cache SET expire_at = '9999-12-31T23:59:59+00:00' WHERE key = 'a'",
    "tags": "UPDATE cache SET tags = '[\"t\"]' WHERE key = 'c'",
    "index": "DELETE FROM cache_tag WHERE tag = 't' AND key = 'a'",
    "version": "UPDATE cache SET version = 2 WHERE key = 'd'",
    "profile": "UPDATE cache SET saved_by_profile = 'p' WHERE key = 'd'",
    "key": "UPDATE cache SET key = 'e' WHERE key = 'd'",
    "one more": "INSERT INTO cache SELECT 'e', data, fmt, expire_at, tags, version,"
    " saved_by_profile, NULL, NULL, NULL, NULL, NULL FROM cache WHERE key = 'd'",
}

# The other tables; the row in the middle is damaged.
PAST: Final = "2020-01-01T00:00:00.000000+00:00"
ACCESS_ROWS = f"""
    INSERT INTO access_log VALUES ('a', 3, '{PAST}', 'p'), ('bad', 2, '{PAST}', 'p'),
                                  ('c', 1, '{PAST}', 'p');
    UPDATE access_log SET %s WHERE key = 'bad';
"""
# What a hit does not mend: what is added to it, or compared with it, stays what it is.
ACCESS_LASTING = {
    "count fractional": "access_count = 2.5",
    "count NULL": "access_count = NULL",
    "time garbage": "last_accessed = 'garbage'",
    "time a blob": "last_accessed = x'00'",
    "time NULL": "last_accessed = NULL",
    "time later than all": "last_accessed = '9999-99-99T00:00:00.000000+00:00'",
}
ACCESS = {
    "key a blob": "key = CAST(key AS BLOB)",
    "key not UTF-8": "key = CAST(x'ff' AS TEXT)",
    "key NULL": "key = NULL",
    "count text": "access_count = 'many'",
    "count a blob": "access_count = x'05'",
    "count negative": "access_count = -1",
    "time impossible": "last_accessed = '2020-02-30T00:00:00.000000+00:00'",
    "time an integer": "last_accessed = 1577836800",
    **ACCESS_LASTING,
    "profile a blob": "last_accessed_by_profile = x'70'",
    "profile not UTF-8": "last_accessed_by_profile = CAST(x'ff' AS TEXT)",
    "profile NULL": "last_accessed_by_profile = NULL",
}
EVICTION_ROWS = f"""
    INSERT INTO eviction_log(key, evicted_at, reason, last_access_count, evicted_by_profile)
        VALUES ('a', '{PAST}', 'r', 3, 'p'), ('bad', '{PAST}', 'r', 2, 'p'),
               ('c', '{PAST}', 'r', 1, 'p');
    UPDATE eviction_log SET %s WHERE key = 'bad';
"""
EVICTION = {
    "key a blob": "key = CAST(key AS BLOB)",
    "key not UTF-8": "key = CAST(x'ff' AS TEXT)",
    "key NULL": "key = NULL",
    "time garbage": "evicted_at = 'garbage'",
    "time impossible": "evicted_at = '2020-02-30T00:00:00.000000+00:00'",
    "time an integer": "evicted_at = 1577836800",
    "time a blob": "evicted_at = x'00'",
    "time NULL": "evicted_at = NULL",
    "reason a blob": "reason = x'72'",
    "reason NULL": "reason = NULL",
    "count text": "last_access_count = 'many'",
    "count negative": "last_access_count = -1",
    "count NULL": "last_access_count = NULL",
    "profile a blob": "evicted_by_profile = x'70'",
    "profile NULL": "evicted_by_profile = NULL",
}
PROFILE: dict[str, Any] = {
    "time_to_live": 77,
    "ttl_cleanup_interval": 0,
    "memory_based_eviction": False,
    "free_memory_target": 0.125,
    "memory_cleanup_interval": 9,
    "max_items_in_memory": 12,
    "tags": ["x"],
}
PROFILE_ROWS = """
    INSERT INTO profiles VALUES ('bad', 77, 0, 0, 0.125, 9, 12, '["x"]'),
                                ('z', 77, 0, 0, 0.125, 9, 12, '["x"]');
    UPDATE profiles SET %s WHERE name = 'bad';
"""
PROFILE_FIELDS = [
    *((field, value) for field in PROFILE for value in ("NULL", "x'00'", "'text'")),
    *(("time_to_live", value) for value in ("0", "-1", "1.5", "1e300")),
    *(("ttl_cleanup_interval", value) for value in ("-1", "1e300")),
    ("free_memory_target", "-1"),
    ("free_memory_target", "-9e999"),
    ("memory_cleanup_interval", "-1"),
    ("max_items_in_memory", "-1"),
    ("tags", "'{\"x\": 1}'"),
    ("tags", "'[\"\"]'"),
    ("tags", "CAST(tags AS BLOB)"),
]
PROFILE_NAMES = {
    "name a blob": "name = x'62'",
    "name not UTF-8": "name = CAST(x'ff' AS TEXT)",
    "name NULL": "name = NULL",
    "name empty": "name = ''",
}

TWO = ("ours", f"{damage('payload cut off')}; UPDATE cache SET version = 0 WHERE key = 'd'")

SAME_NAME = ("ours", "UPDATE cache SET key = NULL WHERE key IN ('bad', 'd')")
LAST_NUMBER = (
    "ours",
    f"INSERT INTO eviction_log VALUES (9223372036854775807, 'x', '{PAST}', 'r', 1, 'p')",
)
WIDEST_SPAN = (
    "ours",
    f"""
    INSERT INTO access_log(rowid, key, access_count, last_accessed, last_accessed_by_profile)
    VALUES (-9223372036854775807, 'x', 1, '{PAST}', 'p'),
           (9223372036854775807, 'y', 1, '{PAST}', 'p')
    """,
)

ODD_CHECKSUM = ("ours", "UPDATE cache SET data = x'39', checksum = 'x' WHERE key = 'bad'")

DAMAGES = [
    *((origin, damage(kind)) for origin, kind in CASES),
    *(("ours", sql) for sql in MUTATIONS.values()),
    *(TWO, SAME_NAME, LAST_NUMBER, WIDEST_SPAN, ODD_CHECKSUM),
    *(("ours", ACCESS_ROWS % change) for change in ACCESS.values()),
    *(("ours", EVICTION_ROWS % change) for change in EVICTION.values()),
    *(("ours", PROFILE_ROWS % f"{field} = {value}") for field, value in PROFILE_FIELDS),
    *(("ours", PROFILE_ROWS % change) for change in PROFILE_NAMES.values()),
]

# Arguments: the folder, in which `ours.db` is ours, and `original.db` is made as the original
# makes it, with the rows; and JSON of both. Each damage makes a file of its own.
MAKE = r"""
import json, shutil, sqlite3, sys
from pathlib import Path

folder, (rows, damages) = Path(sys.argv[1]), json.loads(sys.argv[2])

def connect(path):
    connection = sqlite3.connect(path, isolation_level=None)
    connection.executescript("PRAGMA ignore_check_constraints = ON; PRAGMA synchronous = OFF;")
    return connection

connection = connect(folder / "original.db")
connection.executescript('''
    PRAGMA journal_mode = WAL;
    CREATE TABLE cache (key TEXT PRIMARY KEY, data BLOB NOT NULL, fmt TEXT NOT NULL DEFAULT 'json',
        expire_at DATETIME NOT NULL, tags TEXT NOT NULL CHECK(json_valid(tags)),
        version INTEGER NOT NULL DEFAULT 1, saved_by_profile TEXT NOT NULL);
''')
for key, data, expire_at, tags, profile in rows:
    connection.execute(
        "INSERT INTO cache VALUES (?, ?, 'json', ?, ?, 1, ?)",
        (key, data.encode(), expire_at, tags, profile),
    )
connection.close()

for number, (origin, sql) in enumerate(damages):
    path = folder / f"{number}.db"
    shutil.copy(folder / f"{origin}.db", path)
    connection = connect(path)
    select = "SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'"
    triggers = connection.execute(select).fetchall()
    for name, _ in triggers:
        connection.execute(f"DROP TRIGGER {name}")
    connection.executescript('''
        PRAGMA writable_schema = ON;
        UPDATE sqlite_schema SET sql = replace(sql, ' NOT NULL', '') WHERE type = 'table';
        PRAGMA writable_schema = RESET;
    ''')
    before = connection.total_changes
    connection.executescript(sql)
    assert connection.total_changes > before, sql
    for _, trigger in triggers:
        connection.execute(trigger)
    connection.close()
"""


class Files:
    """Files that were damaged in another process, each in its own way."""

    def __init__(self, folder: Path) -> None:
        """Make them all: a process for each would take longer than the tests."""
        self.folder = folder
        clock = ManualClock()
        clock.advance(-1000)
        settings = {"ttl_cleanup_interval": 0, "memory_based_eviction": False}
        with Cachetronaut(folder / "ours.db", _clock=clock) as cache:
            for key, (value, tags, profile) in ROWS.items():
                cache.profile = Profile(name=profile, **settings)
                cache.set(key, value, ttl=math.inf, tags=tags)
            cache.set("old", 5, ttl=10, tags=["t"])
        rows = [
            (key, json.dumps(value), FOREVER, json.dumps(tags), profile)
            for key, (value, tags, profile) in ROWS.items()
        ]
        rows.append(("old", "5", PAST, '["t"]', "default"))
        subprocess.run(
            [sys.executable, "-c", MAKE, folder, json.dumps((rows, DAMAGES))],
            check=True,
            env=environment(),
            timeout=PATIENCE,
        )

    def copy(self, origin: str, sql: str, to: Path) -> Path:
        """Copy the file of this origin that this SQL has damaged."""
        shutil.copyfile(self.folder / f"{DAMAGES.index((origin, sql))}.db", to)
        return to


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """Make the damaged files, once for all tests of a process."""
    return Files(tmp_path_factory.mktemp("damaged"))


def found(yes: object) -> frozenset[str]:
    """Say of an entry point whether it found the damaged row."""
    return frozenset([BAD]) if yes else frozenset()


def keys(rows: Iterable[Any]) -> frozenset[str]:
    """Name the rows."""
    return frozenset(row.key for row in rows)


def counted(number: int) -> frozenset[str]:
    """Name the entries that an entry point has only counted."""
    return {len(ALL): ALL, len(ROWS): ALL | {BAD}}.get(number, frozenset([str(number)]))


def copied(cache: Cachetronaut) -> frozenset[str]:
    """Name what a copy of the file serves."""
    path = Path(f"{cache.store.db_path}.copy")
    path.unlink(missing_ok=True)
    cache.backup(path)
    with Cachetronaut(path) as copy:
        return frozenset(copy.get_many(NEIGHBOURS))


def put(cache: Cachetronaut) -> None:
    """Write the row as bytes."""
    cache.store.set(
        CacheEntry(key=BAD, data=b'"new"', expire_at=FOREVER, saved_by_profile="p", tags=["u"])
    )


def computed(cache: Cachetronaut) -> frozenset[str]:
    """Compute what is to stand in the place of the damaged row."""
    value = cache.get_or_compute(BAD, lambda: "new", math.inf, ["u"])
    return found(value != "new")


def decorated(cache: Cachetronaut) -> frozenset[str]:
    """Call a decorated function with the damaged row's key, twice."""
    calls: list[int] = []

    @cache(ttl=math.inf, tags=["u"], key_builder=lambda *_: BAD)
    def function(number: int) -> str:
        calls.append(number)
        return "new"

    return found((function(1), function(1), calls) != ("new", "new", [1]))


@dataclass(frozen=True)
class Act:
    """A use of an entry point: the keys that it answers with, without the damaged one."""

    call: Callable[[Cachetronaut], Iterable[str] | None]
    answer: frozenset[str] = frozenset()
    looks: Look = Look.KEY
    removes: frozenset[str] = frozenset()


# Those that are asked for the key alone.
GETS: dict[str, Act] = {
    "get": Act(lambda c: found(c.get(BAD, default=MISS) is not MISS), looks=Look.VALUE),
    "get, model": Act(
        lambda c: found(c.get(BAD, model=str, default=MISS) is not MISS), looks=Look.VALUE
    ),
    "get, version": Act(
        lambda c: found(c.get(BAD, version=1, default=MISS) is not MISS), looks=Look.VALUE
    ),
    "get_many": Act(lambda c: c.get_many(ROWS), ALL, Look.VALUE),
    "in": Act(lambda c: found(BAD in c), looks=Look.VALUE),
    "key_metadata": Act(lambda c: found(c.key_metadata(BAD)), looks=Look.DATA),
    "store.get": Act(lambda c: found(c.store.get(BAD)), looks=Look.DATA),
    "store.key_metadata": Act(lambda c: found(c.store.key_metadata(BAD)), looks=Look.DATA),
}
# Those that are asked for all rows, and look into them.
LISTS: dict[str, Act] = {
    "items": Act(lambda c: keys(c.items()), ALL, Look.VALUE),
    "items, limit": Act(lambda c: keys(c.items(limit=2)), TAGGED, Look.VALUE),
    "store_metadata": Act(lambda c: keys(c.store_metadata()), ALL, Look.DATA),
    "store.items": Act(lambda c: keys(c.store.items()), ALL, Look.DATA),
    "store.items, limit": Act(
        lambda c: keys(c.store.items(limit=len(c.store.items()) - 1)), TAGGED, Look.DATA
    ),
    "store.metadata": Act(lambda c: keys(c.store.metadata()), ALL, Look.DATA),
}
# Those that have no need to look into rows.
GLANCES: dict[str, Act] = {
    "len": Act(lambda c: counted(len(c)), ALL),
    "store_keys": Act(lambda c: c.store_keys(), ALL),
    "all_keys": Act(lambda c: c.all_keys(), ALL),
    "memory_keys": Act(lambda c: found(BAD in c.memory_keys())),
    "stats": Act(lambda c: counted(c.stats()["store_keys"]), ALL),
    "health_check": Act(lambda c: counted(c.health_check()["store_keys_count"]), ALL),
    "store.keys": Act(lambda c: c.store.keys(), ALL),
    "store.count": Act(lambda c: counted(c.store.count()), ALL),
    "get_keys_by_tags": Act(lambda c: c.store.get_keys_by_tags(["t"]), TAGGED),
    "get_keys_by_tags, exact": Act(lambda c: c.store.get_keys_by_tags([BAD, "t"], True)),
    "logs": Act(lambda c: found(BAD in keys([*c.eviction_logs(), *c.store_stats()]))),
    "evict": Act(lambda c: c.evict(BAD)),
    "evict_all": Act(lambda c: c.evict_all()),
    "vacuum": Act(lambda c: c.vacuum()),
    "backup": Act(copied, ALL, Look.VALUE),
    "check": Act(lambda c: found(not c.check()), looks=Look.DATA),
}
# Those that clear, by deadlines, tags and profiles.
CLEARINGS: dict[str, Act] = {
    "clear_expired": Act(lambda c: keys(c.clear_expired()), frozenset(["old"])),
    "sweep": Act(lambda c: TTLEvictionThread(c).evict()),
    "clear_by_tags": Act(lambda c: c.clear_by_tags(["t"]), TAGGED, removes=TAGGED),
    "clear_by_tags, its own": Act(lambda c: c.clear_by_tags(BAD)),
    "clear_by_tags, exact": Act(lambda c: c.clear_by_tags([BAD, "t"], True)),
    "clear_by_tags, another's": Act(
        lambda c: c.clear_by_tags(["c", "t"], True), frozenset("c"), removes=frozenset("c")
    ),
    "clear_by_profile": Act(
        lambda c: c.clear_by_profile("p"), frozenset("c"), removes=frozenset("c")
    ),
}
DELETIONS: dict[str, Act] = {
    "delete": Act(lambda c: [] if c.delete(BAD) else None),
    "delete_many": Act(lambda c: [] if c.delete_many([BAD, "missing"]) else None),
    "store.delete": Act(lambda c: [] if c.store.delete(BAD) else None),
    "check, fix": Act(lambda c: found(not c.check(fix=True)), looks=Look.DATA),
    "clear_all": Act(lambda c: c.clear_all(), removes=ALL),
}
WRITES: dict[str, Act] = {
    "set": Act(lambda c: c.set(BAD, "new", ttl=math.inf, tags=["u"])),
    "set_many": Act(lambda c: c.set_many({BAD: "new"}, ttl=math.inf, tags=["u"])),
    "store.set": Act(put),
    "get_or_compute": Act(computed, looks=Look.VALUE),
    "decorated call": Act(decorated, looks=Look.VALUE),
}
READS = GETS | LISTS | GLANCES


def without(found_: dict[str, Any]) -> dict[str, Any]:
    """Leave out the damaged row."""
    return {key: value for key, value in found_.items() if key != BAD}


def broken(cache: Cachetronaut, removed: frozenset[str] = frozenset()) -> list[str]:
    """Say which neighbours are not as they were, by whatever shows it."""
    rows = {key: row for key, row in NEIGHBOURS.items() if key not in removed}
    values = {key: value for key, (value, _, _) in rows.items()}
    metadata = {
        meta.key: (meta.tags, meta.saved_by_profile, meta.version, meta.expire_at.isoformat())
        for meta in cache.store_metadata()
    }
    tagged = cache.store.get_keys_by_tags(["t"])
    aspects = {
        "get_many": (cache.get_many(NEIGHBOURS), values),
        "items": (without({item.key: item.data for item in cache.items()}), values),
        "metadata": (
            without(metadata),
            {key: (tags, profile, 1, FOREVER) for key, (_, tags, profile) in rows.items()},
        ),
        "keys": (set(cache.store_keys()) - {BAD}, set(rows)),
        "tagged": (set(tagged) - {BAD}, TAGGED - removed),
    }
    return [f"{name}: {is_}, not {was}" for name, (is_, was) in aspects.items() if is_ != was]


def misplaced(records: list[Any], cache: Cachetronaut, table: str, key: str) -> list[str]:
    """Say which warnings do not name the file, the table and the key, or are too many."""
    parts = [cache.store.db_path, f"table {table}", f'key "{key}']
    problems = [
        f"logged {record.levelname} {record.getMessage()}"
        for record in records
        if (record.name, record.levelname) != ("cachetronomy", "WARNING")
        or not all(part in record.getMessage() for part in parts)
    ]
    errors = cache.stats()["errors"]
    if errors != len(records) or errors > 1:
        problems.append(f"{errors} errors are counted, {len(records)} logged")
    return problems


def not_replaced(cache: Cachetronaut, kind: str) -> list[str]:
    """Say what does not show the value that was written over the damaged row."""
    cache.get(BAD)
    problems = []
    for client in (cache, Cachetronaut(cache.store.db_path, profile="other")):
        errors = client.stats()["errors"]
        values = [client.get(BAD), client.get_many([BAD]).get(BAD)]
        client.evict_all()
        values.append(client.get(BAD))
        tags = [client.store.get_keys_by_tags([tag]) for tag in (BAD, "u")]
        if values != ["new"] * 3 or tags != [[], [BAD]]:
            problems.append(f"not replaced: {values}, tags {tags}")
        # A row without a key that anybody could write over is still there.
        if kind not in KEY and (client.check() or client.stats()["errors"] != errors):
            problems.append(f"still damaged: {client.check()}")
        if client is not cache:
            client.close()
    return problems


def unanswered(cache: Cachetronaut, name: str, act: Act, depth: Look) -> list[str]:
    """Use one entry point; say what was not right about its answer."""
    try:
        answer = frozenset(act.call(cache) or ())
    except Exception as error:
        return [f"{name}: {error!r}"]
    problems = []
    if act.looks >= depth and BAD in answer:
        problems.append(f"{name}: found the damaged row")
    if answer - {BAD} != act.answer:
        problems.append(f"{name}: answered {set(answer)}")
    return problems


@pytest.mark.parametrize(("origin", "kind"), CASES, ids=short_id)
def test_no_reader_minds_a_damaged_entry_and_it_is_told_of_once(
    files: Files, tmp_path: Path, caplog: pytest.LogCaptureFixture, origin: str, kind: str
) -> None:
    path = files.copy(origin, damage(kind), tmp_path / "cache.db")
    with Cachetronaut(path, _clock=ManualClock()) as cache:
        problems = []
        for name, act in READS.items():
            problems += unanswered(cache, name, act, shows(origin, kind))
            problems += [f"{name}: {problem}" for problem in broken(cache)]
        assert problems == []
        key = "(row " if kind in KEY else BAD
        assert len(caplog.records) == 1
        assert misplaced(caplog.records, cache, "cache", key) == []
        cache.set(BAD, "new", ttl=math.inf, tags=["u"])
        assert not_replaced(cache, kind) == []
        assert len(caplog.records) == 1


@pytest.mark.parametrize(("origin", "kind"), SAMPLES, ids=short_id)
def test_each_reader_that_meets_a_damaged_entry_tells_of_it(
    files: Files, tmp_path: Path, caplog: pytest.LogCaptureFixture, origin: str, kind: str
) -> None:
    path = files.copy(origin, damage(kind), tmp_path / "cache.db")
    depth, key = shows(origin, kind), "(row " if kind in KEY else BAD
    problems = []
    for name, act in (GETS | LISTS).items():
        caplog.clear()
        with Cachetronaut(path, _clock=ManualClock()) as cache:
            problems += unanswered(cache, name, act, depth)
            told = misplaced(caplog.records, cache, "cache", key)
            # No row has the key that is asked for; the row sorts before all live ones.
            meets = kind not in (KEY if name in GETS else DATE.keys() - {"date garbage"})
            if cache.stats()["errors"] != (meets and act.looks >= depth):
                told.append("it should be told of if it was met, and only then")
            problems += [f"{name}: {problem}" for problem in told]
    assert problems == []


@pytest.mark.parametrize(("origin", "kind"), CASES, ids=short_id)
def test_nobody_who_changes_entries_minds_a_damaged_one(
    files: Files, tmp_path: Path, caplog: pytest.LogCaptureFixture, origin: str, kind: str
) -> None:
    problems = []
    for name, act in (CLEARINGS | DELETIONS | WRITES).items():
        path = files.copy(origin, damage(kind), tmp_path / "cache.db")
        caplog.clear()
        with Cachetronaut(path, _clock=ManualClock()) as cache:
            found_ = unanswered(cache, name, act, shows(origin, kind)) + broken(cache, act.removes)
            if name in WRITES:
                found_ += not_replaced(cache, kind)
            if name in DELETIONS:
                findings = cache.check()
                if bool(findings) != (kind in KEY and "delete" in name):
                    found_.append(f"left {findings}")
            found_ += misplaced(caplog.records, cache, "cache", "(row " if kind in KEY else BAD)
        problems += [f"{name}: {problem}" for problem in found_]
    assert problems == []


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_the_comparison_of_neighbours_sees_a_change(
    files: Files, tmp_path: Path, mutation: str
) -> None:
    path = files.copy("ours", MUTATIONS[mutation], tmp_path / "cache.db")
    with Cachetronaut(path) as cache:
        assert broken(cache) != []


def test_nothing_is_wrong_with_the_files_before_they_are_damaged(
    files: Files, tmp_path: Path
) -> None:
    for origin in ("ours", "original"):
        path = shutil.copyfile(files.folder / f"{origin}.db", tmp_path / "cache.db")
        with Cachetronaut(path) as cache:
            assert broken(cache) == []
            assert cache.get(BAD) == ROWS[BAD][0]
            assert cache.check() == []
            assert cache.stats()["errors"] == 0


def test_the_comparison_of_answers_sees_what_is_missing(files: Files, tmp_path: Path) -> None:
    with Cachetronaut(files.copy(*TWO, tmp_path / "cache.db")) as cache:
        for name in ("get_many", "items", "store.items"):
            assert unanswered(cache, name, READS[name], Look.DATA) != [], name
        assert unanswered(cache, "store_keys", READS["store_keys"], Look.DATA) == []
        assert unanswered(cache, "store_keys", READS["store_keys"], Look.KEY) != []


def test_two_damaged_entries_are_two_errors(
    files: Files, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Cachetronaut(files.copy(*TWO, tmp_path / "cache.db")) as cache:
        assert keys(cache.items()) == TAGGED
        assert cache.get_many([BAD, "d"]) == {}
        assert cache.stats()["errors"] == len(caplog.records) == 2


# Each line is SQL of a stranger, who has dropped the triggers.
STRANGER = """
import json, sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=30)
connection.execute("PRAGMA ignore_check_constraints = ON")
triggers = "SELECT name FROM sqlite_schema WHERE type = 'trigger'"
for (name,) in connection.execute(triggers).fetchall():
    connection.execute(f"DROP TRIGGER {name}")
for line in sys.stdin:
    print(connection.execute(json.loads(line)[0]).rowcount, flush=True)
"""


def test_damage_done_to_an_entry_in_memory_shows_at_once(
    db_path: Path, child: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    with Cachetronaut(db_path) as cache:
        stranger = child(STRANGER, db_path)
        for number, kind in enumerate(kind for kind in KINDS if not kind.endswith(" NULL")):
            bad, good = f"bad {number}", f"good {number}"
            cache.set_many({bad: "a payload of some length", good: kind}, tags=["t", "bad"])
            assert (cache.get(bad), cache.get(good)) == ("a payload of some length", kind)
            caplog.clear()
            assert stranger.ask(f"UPDATE cache SET {KINDS[kind]} WHERE key = '{bad}'") == 1, kind
            assert (cache.get(bad), cache.get(good)) == (None, kind), kind
            assert (bad in cache.memory_keys(), good in cache.memory_keys()) == (False, True), kind
            assert len(caplog.records) == (kind not in KEY), kind
            cache.set(bad, "new")
            assert cache.get(bad) == "new", kind
        assert stranger.end() == 0


def change(kinds: dict[str, str], rows: str, kind: str) -> tuple[str, str]:
    """Name the file whose row in another table is damaged in this way."""
    return "ours", rows % kinds[kind]


@pytest.mark.parametrize("kind", ACCESS)
def test_a_damaged_line_of_the_access_log_hides_no_other(
    files: Files, tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    path = files.copy(*change(ACCESS, ACCESS_ROWS, kind), tmp_path / "cache.db")
    with Cachetronaut(path, _clock=ManualClock()) as cache:
        good = [("a", 3), ("c", 1)]
        for limit in (2, 3, None):
            assert cache.get_hot_keys(limit) == good
            for read in (cache.access_logs, cache.store_stats, cache.store.stats):
                assert [(line.key, line.access_count) for line in read(limit)] == good
        assert cache.stats()["hot_keys"] == good
        line = cache.key_access_logs(BAD)
        assert (line.access_count, line.last_accessed_by_profile) == (0, "(n/a)")
        assert cache.key_access_logs("a").access_count == 3
        key = "(row " if kind in KEY else BAD
        assert len(caplog.records) == 1
        assert misplaced(caplog.records, cache, "access_log", key) == []
        for key in (BAD, "a", "a"):
            cache.get(key)
        cache.flush()
        assert cache.key_access_logs("a").access_count == 5
        assert cache.key_access_logs("c").access_count == 1
        cache.delete_access_logs(BAD)
        assert cache.get_hot_keys() == [("a", 5), ("c", 1)]
        cache.clear_access_logs()
        assert cache.access_logs() == []
        assert broken(cache) == []
        assert len(caplog.records) == 1


@pytest.mark.parametrize("kind", [kind for kind in ACCESS if kind not in KEY])
def test_hits_mend_a_line_of_the_access_log(files: Files, tmp_path: Path, kind: str) -> None:
    path = files.copy(*change(ACCESS, ACCESS_ROWS, kind), tmp_path / "cache.db")
    with Cachetronaut(path) as cache:
        cache.get(BAD)
        cache.get(BAD)
        cache.flush()
        assert cache.key_access_logs(BAD).access_count >= 1


@pytest.mark.parametrize("kind", EVICTION)
def test_a_damaged_line_of_the_eviction_log_hides_no_other(
    files: Files, tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    path = files.copy(*change(EVICTION, EVICTION_ROWS, kind), tmp_path / "cache.db")
    with Cachetronaut(path, _clock=ManualClock()) as cache:
        for limit in (2, 3, None):
            for read in (cache.eviction_logs, cache.store.eviction_logs):
                lines = [(line.key, line.last_access_count) for line in read(limit)]
                assert lines == [("c", 1), ("a", 3)]
        key = "(row " if kind in KEY else BAD
        assert len(caplog.records) == 1
        assert misplaced(caplog.records, cache, "eviction_log", key) == []
        cache.delete("d")
        assert [line.key for line in cache.eviction_logs(2)] == ["d", "c"]
        assert cache.store.eviction_count() == 4
        cache.clear_eviction_logs()
        assert cache.eviction_logs() == []
        assert broken(cache, frozenset("d")) == []
        assert len(caplog.records) == 1


@pytest.mark.parametrize(("field", "value"), PROFILE_FIELDS, ids=short_id)
def test_a_damaged_field_of_a_profile_has_its_default(
    files: Files, tmp_path: Path, caplog: pytest.LogCaptureFixture, field: str, value: str
) -> None:
    path = files.copy("ours", PROFILE_ROWS % f"{field} = {value}", tmp_path / "cache.db")
    fields = {name: value for name, value in PROFILE.items() if name != field}
    expected = Profile(name=BAD, **fields)
    with Cachetronaut(path, profile=BAD) as cache:
        assert cache.profile == expected
        assert cache.get_profile(BAD) == cache.store.profile(BAD) == expected
        profiles = {profile.name: profile for profile in cache.list_profiles()}
        assert profiles.keys() == {BAD, "default", "p", "z"}
        assert (profiles[BAD], profiles["z"]) == (expected, Profile(name="z", **PROFILE))
        assert len(caplog.records) == 1
        assert misplaced(caplog.records, cache, "profiles", BAD) == []
        cache.profile = "z"
        cache.profile = BAD
        assert cache.profile == expected
        assert cache.update_active_profile(time_to_live=5).time_to_live == 5
        assert cache.get_profile(BAD) == Profile(name=BAD, **{**fields, "time_to_live": 5})
        assert cache.delete_profile(BAD)
        assert broken(cache) == []
        assert len(caplog.records) == 1


@pytest.mark.parametrize("kind", PROFILE_NAMES)
def test_a_profile_without_a_name_hides_no_other(
    files: Files, tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    path = files.copy(*change(PROFILE_NAMES, PROFILE_ROWS, kind), tmp_path / "cache.db")
    with Cachetronaut(path, profile="z") as cache:
        assert cache.profile == Profile(name="z", **PROFILE)
        for _ in range(2):
            assert [profile.name for profile in cache.list_profiles()] == ["default", "p", "z"]
            assert cache.get_profile(BAD) is None
        assert len(caplog.records) == 1
        assert misplaced(caplog.records, cache, "profiles", "(row ") == []
        cache.profile = BAD
        assert cache.profile == Profile(name=BAD)
        assert broken(cache) == []


@pytest.mark.parametrize("kind", ["payload cut off", "payload an integer", "checksum wrong"])
@pytest.mark.parametrize("name", ["in", "store_metadata", "store.metadata"])
def test_what_get_misses_is_nowhere_else(
    files: Files, tmp_path: Path, kind: str, name: str
) -> None:
    with Cachetronaut(files.copy("ours", damage(kind), tmp_path / "cache.db")) as cache:
        assert cache.get(BAD) is None
        assert unanswered(cache, name, READS[name], Look.KEY) == []


def test_a_checksum_that_is_no_number_does_not_match(files: Files, tmp_path: Path) -> None:
    with Cachetronaut(files.copy(*ODD_CHECKSUM, tmp_path / "cache.db")) as cache:
        assert cache.get(BAD) is None
        assert broken(cache) == []


def test_a_check_finds_tags_that_are_missing_in_the_index(files: Files, tmp_path: Path) -> None:
    with Cachetronaut(files.copy("ours", MUTATIONS["index"], tmp_path / "cache.db")) as cache:
        assert cache.check(fix=True) != []
        assert set(cache.store.get_keys_by_tags(["t"])) == {*TAGGED, BAD}


def test_two_entries_without_a_key_are_two_errors(files: Files, tmp_path: Path) -> None:
    with Cachetronaut(files.copy(*SAME_NAME, tmp_path / "cache.db")) as cache:
        assert keys(cache.items()) == TAGGED
        assert cache.stats()["errors"] == 2


def test_a_sweep_tells_of_a_damaged_entry_that_it_removes(files: Files, tmp_path: Path) -> None:
    path = files.copy("ours", damage("date an integer"), tmp_path / "cache.db")
    with Cachetronaut(path) as cache:
        cache.clear_expired()
        assert cache.check() == []
        assert cache.stats()["errors"] == 1


def test_stats_count_the_damaged_line_that_they_meet(files: Files, tmp_path: Path) -> None:
    path = files.copy(*change(ACCESS, ACCESS_ROWS, "count text"), tmp_path / "cache.db")
    with Cachetronaut(path) as cache:
        assert cache.stats()["errors"] == 1


def test_a_client_that_opens_with_a_damaged_profile_tells_of_it(
    files: Files, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = files.copy("ours", PROFILE_ROWS % "time_to_live = NULL", tmp_path / "cache.db")
    with Cachetronaut(path, profile=BAD) as cache:
        cache.get("a")
        assert cache.stats()["errors"] == len(caplog.records) == 1


@pytest.mark.parametrize("file", [LAST_NUMBER, WIDEST_SPAN], ids=["eviction_log", "access_log"])
def test_numbers_of_lines_at_the_end_of_their_range_stop_no_log(
    files: Files, tmp_path: Path, file: tuple[str, str]
) -> None:
    with Cachetronaut(files.copy(*file, tmp_path / "cache.db")) as cache:
        cache.get("a")
        cache.delete("d")
        cache.flush()
        assert cache.key_access_logs("a").access_count == 1
