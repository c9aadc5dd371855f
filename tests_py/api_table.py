"""The public API by import path, written by hand: what a user's program may rely on."""

from __future__ import annotations

from typing import Any, Final

ANY: Final = "some default"
PRESENT: Final = "something that is not called"

# A signature is written as in a `def`, without `self`; a default `ANY` may be any. More parameters
# may follow. Where a class stands, "" names its constructor.
Members = dict[str, str]

CLIENT: Members = {
    "": "db_path=None, *, profile=None, max_items_in_memory=ANY, busy_timeout=None, loop=None",
    "__enter__": PRESENT,
    "__exit__": PRESENT,
    "__contains__": PRESENT,
    "__len__": PRESENT,
    "access_logs": "limit=None",
    "add": "key, value, time_to_live=None, version=None, tags=None, prefer=None, *, ttl=None",
    "all_keys": "",
    "backup": "path",
    "check": "fix=False",
    "clear_access_logs": "",
    "clear_all": "",
    "clear_by_profile": "profile_name",
    "clear_by_tags": "tags, exact_match=False",
    "clear_eviction_logs": "",
    "clear_expired": "",
    "close": "",
    "decr": "key, delta=1, default=0, time_to_live=None, tags=None, *, ttl=None",
    "delete": "key",
    "delete_access_logs": "key",
    "delete_many": "keys",
    "delete_match": "pattern",
    "delete_profile": "name",
    "disabled": "",
    "evict": "key",
    "evict_all": "",
    "eviction_logs": "limit=1000",
    "expire_at": "key",
    "flush": "",
    "get": "key, model=None, promote=True, default=None, version=None",
    "get_hot_keys": "limit=10",
    "get_many": "keys",
    "get_or_compute": "key, compute_fn, time_to_live=None, tags=None, version=1, prefer=None, "
    "*, ttl=None",
    "get_or_set": "key, compute_fn, time_to_live=None, tags=None, version=1, prefer=None, "
    "*, ttl=None",
    "get_profile": "name=None",
    "health_check": "",
    "incr": "key, delta=1, default=0, time_to_live=None, tags=None, *, ttl=None",
    "invalidate_tags": "tags, exact_match=False",
    "items": "limit=None",
    "key_access_logs": "key",
    "key_metadata": "key",
    "keys": "pattern=None, tag=None",
    "list_profiles": "",
    "lock": "name, ttl=30, timeout=None",
    "memory_keys": "",
    "memory_stats": "limit=None",
    "pop": "key, default=None",
    "profile": PRESENT,
    "set": "key, value, time_to_live=None, version=None, tags=None, prefer=None, *, ttl=None",
    "set_many": "items, time_to_live=None, tags=None, version=None, prefer=None, *, ttl=None",
    "set_profile": "profile",
    "shutdown": "",
    "stats": "",
    "store": PRESENT,
    "store_keys": "",
    "store_metadata": "",
    "store_stats": "limit=None",
    "touch": "key, ttl=None, *, time_to_live=None",
    "ttl": "key",
    "update_active_profile": "profile=None, **changes",
    "vacuum": "",
}

# The same, awaited; what a sync client does by a dunder has a name.
ASYNC_CLIENT: Members = {
    **{name: signature for name, signature in CLIENT.items() if not name.startswith("__")},
    "": CLIENT[""].replace("loop=None", "offload_reads=None, loop=None"),
    "__aenter__": PRESENT,
    "__aexit__": PRESENT,
    "contains": "key",
    "count": "",
    "init_async": "",
}

STORE: Members = {
    "": "db_path",
    "access_logs": "limit=None",
    "clear_access_logs": "",
    "clear_all": "",
    "clear_by_profile": "profile_name",
    "clear_by_tags": "tags, exact_match=False",
    "clear_eviction_logs": "",
    "clear_expired": "",
    "close": "",
    "custom_query": "custom_query",
    "delete": "key",
    "delete_access_logs": "key",
    "delete_profile": "name",
    "eviction_logs": "limit=1000",
    "get": "key",
    "get_all_access_logs": "limit=None",
    "get_keys_by_tags": "tags, exact_match=False",
    "items": "limit=None",
    "key_access_logs": "key",
    "key_metadata": "key",
    "keys": "",
    "list_profiles": "",
    "log_access": "entry, batch=True",
    "log_eviction": "entry, batch=True",
    "metadata": "",
    "profile": "name",
    "set": "entry",
    "stats": "limit=10",
    "update_profile_settings": "name, time_to_live=ANY, tags=ANY, ttl_cleanup_interval=ANY, "
    "memory_based_eviction=ANY, free_memory_target=ANY, memory_cleanup_interval=ANY, "
    "max_items_in_memory=ANY",
}

ASYNC_STORE: Members = {**STORE, "init": ""}

PROFILE: Members = {
    "": "*, name, time_to_live=3600, ttl_cleanup_interval=60, memory_based_eviction=True, "
    "free_memory_target=500.0, memory_cleanup_interval=5, max_items_in_memory=100, tags=ANY",
    "load_profiles": "path",
    "model_dump": PRESENT,
}

SETTINGS: Members = {
    "db_path": PRESENT,
    "default_profile": PRESENT,
    "time_to_live": PRESENT,
    "ttl_cleanup_interval": PRESENT,
    "memory_based_eviction": PRESENT,
    "free_memory_target": PRESENT,
    "memory_cleanup_interval": PRESENT,
    "max_items_in_memory": PRESENT,
    "tags": PRESENT,
    "serializer": PRESENT,
}

THREAD: Members = {"start": "", "evict": "", "stop": "", "join": "timeout=None", "is_alive": ""}
TTL_THREAD: Members = {"": "cache, loop=None, ttl_cleanup_interval=60", **THREAD}
MEMORY_THREAD: Members = {
    "": "cache, loop=None, memory_cleanup_interval=5, free_memory_target=500.0",
    **THREAD,
}

BASE_NAMES = ("evict", "delete", "store_keys", "clear_by_tags", "items", "shutdown")
BASE: Members = dict.fromkeys(BASE_NAMES, PRESENT)

ROW = "*, key, fmt='json', expire_at, tags=ANY, saved_by_profile, version=1"
SCHEMAS: dict[str, Members] = {
    "CacheMetadata": {"": ROW, "tags_json": PRESENT},
    "CacheEntry": {"": f"{ROW}, data", "tags_json": PRESENT},
    "ExpiredEntry": {"": "*, key, expire_at"},
    "AccessLogEntry": {"": "*, key, access_count, last_accessed, last_accessed_by_profile"},
    "EvictionLogEntry": {
        "": "*, id, key, evicted_at, reason, last_access_count, evicted_by_profile"
    },
    "CustomQuery": {"": "*, query, params=(), schema_type=None, autocommit=False"},
}

ERRORS = (
    "CachetronomyError",
    "CacheClosedError",
    "CorruptEntryError",
    "CorruptStoreError",
    "SerializationError",
    "StoreBusyError",
    "StoreFullError",
    "StoreUnavailableError",
    "InvalidSettingError",
    "InvalidKeyError",
)

# By import path: classes with their members, functions with their signatures.
API: dict[str, dict[str, Members | str]] = {
    "cachetronomy": {
        "AsyncCachetronaut": ASYNC_CLIENT,
        "Cachetronaut": CLIENT,
        "Profile": PROFILE,
        "CacheSettings": SETTINGS,
        "MISS": PRESENT,
        "__version__": PRESENT,
        **dict.fromkeys(ERRORS, PRESENT),
    },
    "cachetronomy.core": {
        "AsyncCachetronaut": ASYNC_CLIENT,
        "Cachetronaut": CLIENT,
        "Profile": PROFILE,
    },
    "cachetronomy.core.cache.cachetronaut": {"Cachetronaut": CLIENT},
    "cachetronomy.core.cache.cachetronaut_async": {"AsyncCachetronaut": ASYNC_CLIENT},
    "cachetronomy.core.cache.cachetronomer": {"Cachetronomer": BASE},
    "cachetronomy.core.types.profiles": {"Profile": PROFILE},
    "cachetronomy.core.types.settings": {"CacheSettings": SETTINGS},
    "cachetronomy.core.types.schemas": {**SCHEMAS},
    "cachetronomy.core.eviction": {
        "MemoryEvictionThread": MEMORY_THREAD,
        "TTLEvictionThread": TTL_THREAD,
    },
    "cachetronomy.core.eviction.memory": {"MemoryEvictionThread": MEMORY_THREAD},
    "cachetronomy.core.eviction.time_to_live": {"TTLEvictionThread": TTL_THREAD},
    "cachetronomy.core.access_frequency": {
        "get_hot_keys": "limit=10",
        "hot_keys": "limit=10",
        "promote_key": "key",
        "deregister_key": "key",
        "memory_key_count": "key",
        "register_callback": "callback",
    },
    "cachetronomy.core.serialization": {
        "serialize": "obj, *, prefer=None",
        "deserialize": "data, fmt, *, model_type=None",
        "register_serializer": "name, dumps, loads",
        "choose_serializer": "obj, prefer=None",
        "export_model_schema": "model_cls, out_path",
    },
    "cachetronomy.core.store": {"SQLiteStore": STORE, "AsyncSQLiteStore": ASYNC_STORE},
    "cachetronomy.core.store.sqlite.asynchronous": {"AsyncSQLiteStore": ASYNC_STORE},
    "cachetronomy.core.store.sqlite.synchronous": {"SQLiteStore": STORE},
    "cachetronomy.core.store.memory": {"MISS": PRESENT},
    "cachetronomy.core.utils.key_builder": {"default_key_builder": "fn, args, kwargs"},
    "cachetronomy.core.utils.time_utils": {"_now": ""},
}

# Options of the decorator, with a value for each.
DECORATOR: dict[str, Any] = {
    "time_to_live": 60,
    "ttl": 60,
    "tags": ["t"],
    "version": 2,
    "prefer": "msgpack",
    "key_builder": lambda function, args, kwargs: f"{args} {kwargs}",
    "ignore": ("number",),
    "jitter": 0.1,
    "condition": bool,
    "cache_exceptions": (ValueError, KeyError),
    "negative_ttl": "10s",
}

# What a decorated function has, and a bound method too.
DECORATED: Members = {
    "cache": PRESENT,
    "cache_clear": "",
    "cache_info": "",
    "invalidate": "*args, **kwargs",
    "key_for": "*args, **kwargs",
    "refresh": "*args, **kwargs",
}

# Two names of one thing.
ALIASES = (("cachetronomy.core.access_frequency", "hot_keys", "get_hot_keys"),)
