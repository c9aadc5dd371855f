"""The programs that run inside the original package, and the values they store."""

from __future__ import annotations

# One source for both sides: the programs evaluate it there, the tests here.
JSON_VALUES = r"""{
    "nothing": None,
    "yes": True,
    "no": False,
    "zero": 0,
    "negative": -(2**63),
    "large": 2**63 - 1,
    "fraction": 0.1,
    "huge": 1.7976931348623157e308,
    "minus zero": -0.0,
    "empty": "",
    "text": 'quote " backslash \\ line\n tab\t nul\0 \x7f',
    "non-ASCII": "\u00c6r\u00f8 \u6771\u4eac \U0001f680 \u2028 \u00a0",
    "long": "ab\u00e9" * 5000,
    "list": [1, [2, [3, [None, "x"]]], {}, []],
    "map": {"b": 1, "a": {"\u00e9": [True]}, "": 0.5},
}"""

# What MessagePack alone carries. Without `prefer` it is chosen for bytes by itself.
PACKED_VALUES = r"""{
    "bytes": b"\x00\xff\x80binary",
    "int keys": {1: "one", -2: [b"x"], 3: {4: 5}},
    "beyond": [float("nan"), float("inf"), float("-inf")],
    "unsigned": 2**64 - 1,
}"""

# Where orjson refuses, the JSON of the standard library is written under the same label.
LENIENT_VALUES = r"""{
    "big": 2**80,
    "not finite": {"big": -(2**80), "x": [float("nan"), float("inf"), float("-inf")]},
    "int keys": {"1": 2**70},
}"""

# Its fields stand as in the original's table.
PROFILE = {
    "name": "fast \u00e9",
    "time_to_live": 77,
    "ttl_cleanup_interval": 7,
    "memory_based_eviction": False,
    "free_memory_target": 0.125,
    "memory_cleanup_interval": 9,
    "max_items_in_memory": 12,
    "tags": ["fast", "\u00e9"],
}

# Arguments: the file; `closed` or `killed`; the values and the profile as JSON text. It prints
# what the standard library's sqlite3 finds in the tables.
WRITE = """
import json, os, sqlite3, sys
from datetime import timedelta
from pydantic import BaseModel
from cachetronomy import Cachetronaut
from cachetronomy.core.types.profiles import Profile
from cachetronomy.core.types.schemas import AccessLogEntry, CacheEntry, EvictionLogEntry
from cachetronomy.core.utils.time_utils import _now

path, ending, sources, profile = sys.argv[1], sys.argv[2], *map(json.loads, sys.argv[3:])

class Point(BaseModel):
    x: int
    name: str
    labels: list[str]

class Versioned(BaseModel):
    __cache_version__ = 7
    x: int

cache = Cachetronaut(db_path=path)
cache.profile = Profile(**{**profile, "name": "other", "tags": []})
json_values, packed_values, lenient_values = map(eval, sources)
for prefer in ("json", "orjson", "msgpack", None):
    for name, value in json_values.items():
        cache.set(f"{prefer} {name}", value, prefer=prefer)
for name, value in packed_values.items():
    cache.set(f"packed {name}", value, prefer="msgpack")
cache.set("unasked bytes", b"\\xff\\x00", prefer=None)
for name, value in lenient_values.items():
    cache.set(f"lenient {name}", {1: value["1"]} if name == "int keys" else value, prefer="orjson")
cache.set("json not finite", [float("nan"), float("inf"), -float("inf"), 2**80], prefer="json")
cache.set("model", Point(x=1, name="\\u00e9", labels=["a"]))
cache.set("versioned", Versioned(x=5))
cache.set("tuple", (1, (2, 3)))
cache.set("looks typed", [None, {"__type__": "set", "items": [1]}], prefer="msgpack")
cache.set("", "the empty key", tags=["", "empty"])
cache.set("k\\u00e9y \\u6771 \\U0001f680", 1, tags=["\\u00e9", "it's"], version=3)
cache.set("tagged", 1, tags=["a", "b"])
cache.set("tagged too", 1, tags=["b"])
cache.set("tagged otherwise", 1, tags=["c"])
cache.profile = Profile(**profile)
cache.set("in the other profile", 1)
if hasattr(cache.store, "set_config"):  # 0.2 and later; `set_profile` of 0.2.1 fails at it
    cache.store.set_config("active_profile", profile["name"], path)

cache.evict("json list")
for _ in range(3):
    cache.evict("json map")
    found = cache.get("json map")
    assert getattr(found, "data", found) == json_values["map"]  # 0.2.1 gives an entry at times
cache.delete("json yes")
cache.evict("json list")
now = _now()
cache.store.log_access(
    AccessLogEntry(key="logged", access_count=1, last_accessed=now, last_accessed_by_profile="p"),
    batch=False,
)
for reason in ("time_eviction", "memory_eviction", "shutdown"):
    cache.store.log_eviction(
        EvictionLogEntry(id=None, key="gone", evicted_at=now, reason=reason, last_access_count=4,
                         evicted_by_profile="p"),
        batch=False,
    )
cache.store.access_logger.flush()
cache.store.eviction_logger.flush()

def entry(key, expire_at):
    return CacheEntry(key=key, data=b"1", fmt="json", expire_at=expire_at, tags=["b"],
                      saved_by_profile="default", version=1)

cache.store.set(entry("past", now - timedelta(seconds=1)))
cache.store.set(entry("past, no fraction", now.replace(microsecond=0) - timedelta(seconds=1)))
cache.store.set(entry("far, no fraction", now.replace(year=2999, month=1, day=1, microsecond=0)))
cache.store.set(entry("near", now + timedelta(seconds=50)))
if ending == "closed":
    cache.shutdown()

connection = sqlite3.connect(path)
def rows(table):
    exists = "SELECT count(*) FROM sqlite_master WHERE name = ?"
    if not connection.execute(exists, [table]).fetchone()[0]:
        return []
    return connection.execute(f"SELECT * FROM {table} ORDER BY 1").fetchall()

tables = ("cache", "access_log", "eviction_log", "profiles", "cli_config")
print(json.dumps({table: rows(table) for table in tables}, default=bytes.hex), flush=True)
connection.close()
if ending == "killed":
    os._exit(0)
"""

# Arguments: the file, keys. It prints what the client and its store say, values as `repr`.
READ = """
import json, sys
from cachetronomy import Cachetronaut
from cachetronomy.core.serialization import deserialize

path, keys = sys.argv[1], json.loads(sys.argv[2])
cache = Cachetronaut(db_path=path)
modern = hasattr(cache, "set_profile")  # 0.2 and later
everything = [1000] if modern else []

def dump(model):
    return None if model is None else json.loads(model.model_dump_json())

def attempt(action):
    try:
        action()
    except Exception as error:
        return f"{type(error).__name__}: {error}"

def get(key):
    value = cache.get(key)
    return getattr(value, "data", value)  # 0.2.1 gives an entry at times

def stored(key):
    entry = cache.store.get(key)
    return deserialize(entry.data, entry.fmt)

found = {
    "keys": cache.store_keys(),
    "metadata": {key: dump(cache.key_metadata(key)) for key in keys},
    "all metadata": sorted(meta.key for meta in cache.store_metadata()),
    "access": [dump(row) for row in cache.access_logs(*everything)],
    "evictions": [dump(row) for row in cache.eviction_logs(1000)],
    "profiles": [dump(row) for row in cache.list_profiles()],
    "items": attempt(lambda: cache.items(*everything)),
    "gets": {key: repr(get(key)) for key in keys},
    "values": {key: repr(stored(key)) for key in keys},
    "typed": attempt(lambda: cache.get("typed")),
}
cache.profile = "ours"
found["time_to_live"] = cache.profile.time_to_live
cache.shutdown()
print(json.dumps(found))
"""

# Argument: the file. Each line is a command and its arguments; the answer is its result.
SERVE = """
import json, sys
from cachetronomy import Cachetronaut
from cachetronomy.core.serialization import deserialize

cache = Cachetronaut(db_path=sys.argv[1])
for line in sys.stdin:
    command, *args = json.loads(line)
    if command == "set":
        key, value, tags = args
        answer = cache.set(key, value, time_to_live=900, tags=tags, prefer="json") and None
    elif command == "get":  # From the file: its memory is never told of others' writes.
        entry = cache.store.get(args[0])
        answer = entry and deserialize(entry.data, entry.fmt)
    elif command == "delete":
        answer = cache.delete(args[0])
    elif command == "clear tags":
        answer = cache.clear_by_tags(args[0], False)
    elif command == "keys":
        answer = sorted(cache.store_keys())
    elif command == "burst":
        for number in range(args[1]):
            cache.set(f"{args[0]} {number}", number, time_to_live=900, tags=["burst"])
            cache.delete(f"{args[0]} {number - 10}")
            cache.store.get(f"ours {number}")
        answer = "done"
    elif command == "close":
        answer = cache.shutdown()
    print(json.dumps(answer), flush=True)
"""

# What can be seen of a class or function: the same code runs there and here.
DESCRIBE = r"""
import inspect

def parameters(thing):
    fields = getattr(thing, "model_fields", None)
    if fields is not None:  # A pydantic model: what pydantic adds is no concern.
        return [
            [name, "KEYWORD_ONLY",
             None if field.is_required() else repr(field.get_default(call_default_factory=True))]
            for name, field in fields.items()
        ]
    try:
        found = list(inspect.signature(thing).parameters.values())
    except (TypeError, ValueError):
        return None
    if found and found[0].name == "self":
        del found[0]
    empty = inspect.Parameter.empty
    return [[one.name, one.kind.name, None if one.default is empty else repr(one.default)]
            for one in found]

def describe(thing):
    if not inspect.isclass(thing):
        kind = "a function" if callable(thing) else "a value"
        found = parameters(thing) if callable(thing) else None
        return {"kind": kind, "members": {}, "parameters": found, "awaited": False}
    members = {}
    awaited = False
    for base in reversed(thing.__mro__):
        if base.__module__.startswith("cachetronomy"):
            for name in vars(base):
                if name in {"__call__", "__enter__", "__exit__"} or not name.startswith("_"):
                    member = getattr(thing, name, None)
                    members[name] = parameters(member) if callable(member) else None
                    awaited = awaited or hasattr(member, "async_")  # 0.2 and later: both in one
    found = parameters(thing)
    return {"kind": "a class", "members": members, "parameters": found, "awaited": awaited}
"""

# It prints what each module defines itself, and what else it names in `__all__`.
DUMP = r"""
#DESCRIBE
import ast, importlib, inspect, json, pkgutil
import cachetronomy

found = {"cachetronomy.__main__": {}}
paths = [one.name for one in pkgutil.walk_packages(cachetronomy.__path__, "cachetronomy.")]
for path in ["cachetronomy", *paths]:
    if path in found:
        continue
    module = importlib.import_module(path)
    nothing = {"members": {}, "parameters": None, "awaited": False}
    found[path] = {
        name: {"kind": "a name of another module", **nothing}
        for name in getattr(module, "__all__", [])
    }
    names = set()
    for node in ast.parse(open(module.__file__, encoding="utf-8").read()).body:
        if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names |= {one.id for one in node.targets if isinstance(one, ast.Name)}
    for name in sorted(names):
        if not name.startswith("_") or name in {"_now", "__version__"}:
            found[path][name] = describe(getattr(module, name))
print(json.dumps(found))
"""
