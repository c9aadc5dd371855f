"""The import paths of the original package name the very objects, and importing stays cheap."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path

import cachetronomy
import pytest
from cachetronomy import (
    CacheSettings,
    Cachetronaut,
    Profile,
    core,
    eviction,
    models,
    serialization,
)
from cachetronomy._core import MISS
from cachetronomy.core.cache.cachetronomer import Cachetronomer
from cachetronomy.core.utils.key_builder import default_key_builder
from cachetronomy.core.utils.time_utils import _now
from cachetronomy.store import SQLiteStore

ROWS = ["AccessLogEntry", "CacheEntry", "CacheMetadata", "CustomQuery", "EvictionLogEntry"]
THREADS = {
    "MemoryEvictionThread": eviction.MemoryEvictionThread,
    "TTLEvictionThread": eviction.TTLEvictionThread,
}
FUNCTIONS = [
    "serialize",
    "deserialize",
    "register_serializer",
    "choose_serializer",
    "export_model_schema",
]
PATHS: dict[str, dict[str, object]] = {
    "cachetronomy": {"Cachetronaut": Cachetronaut, "Profile": Profile, "MISS": MISS},
    "cachetronomy.core": {"Cachetronaut": Cachetronaut, "Profile": Profile},
    "cachetronomy.core.cache.cachetronaut": {"Cachetronaut": Cachetronaut},
    "cachetronomy.core.cache.cachetronomer": {"Cachetronomer": Cachetronomer},
    "cachetronomy.core.types.profiles": {"Profile": Profile},
    "cachetronomy.core.types.settings": {"CacheSettings": CacheSettings},
    "cachetronomy.core.types.schemas": {
        name: getattr(models, name) for name in [*ROWS, "ExpiredEntry"]
    },
    "cachetronomy.core.eviction": THREADS,
    "cachetronomy.core.eviction.memory": {
        "MemoryEvictionThread": eviction.MemoryEvictionThread,
    },
    "cachetronomy.core.eviction.time_to_live": {"TTLEvictionThread": eviction.TTLEvictionThread},
    "cachetronomy.core.access_frequency": dict.fromkeys(["get_hot_keys", "hot_keys"]),
    "cachetronomy.core.serialization": {name: getattr(serialization, name) for name in FUNCTIONS},
    "cachetronomy.core.store": {"SQLiteStore": SQLiteStore},
    "cachetronomy.core.store.memory": {"MISS": MISS},
    "cachetronomy.core.store.sqlite.synchronous": {"SQLiteStore": SQLiteStore},
    "cachetronomy.core.utils.key_builder": {"default_key_builder": default_key_builder},
    "cachetronomy.core.utils.time_utils": {"_now": _now},
}

LOADED = """
import sys
before = set(sys.modules)
{code}
loaded = {{name.split(".")[0] for name in set(sys.modules) - before}}
print(sorted(loaded & {{"pydantic", "pydantic_settings", "yaml", "dotenv", "asyncio"}}))
"""


@pytest.mark.parametrize("path", PATHS)
def test_paths_name_the_very_objects(path):
    module = importlib.import_module(path)
    for name, expected in PATHS[path].items():
        found = getattr(module, name)
        assert expected is None or found is expected
        assert name in dir(module)
        assert name.startswith("_") or name in module.__all__


def test_all_names_of_the_package_are_there():
    for name in cachetronomy.__all__:
        assert getattr(cachetronomy, name) is not None
        assert name in dir(cachetronomy)
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = cachetronomy.Nothing
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = core.Nothing


def test_every_module_can_be_imported_first(run_python: Callable[..., object]) -> None:
    names = [
        module.name
        for module in pkgutil.walk_packages(cachetronomy.__path__, "cachetronomy.")
        if not module.name.rpartition(".")[2].startswith("__")
    ]
    assert set(PATHS) <= {*names, "cachetronomy"}
    for name in names:
        importlib.import_module(name)
    for name in ("client", "store", "abstract", "core.types.settings", "core.store.memory"):
        run_python(f"import cachetronomy.{name}")


@pytest.mark.parametrize(
    ("code", "loaded"),
    [
        ("import cachetronomy", []),
        ("import cachetronomy.core", []),
        ("from cachetronomy.core.cache.cachetronaut import Cachetronaut", []),
        ("from cachetronomy.core.eviction import TTLEvictionThread", []),
        ("from cachetronomy.core import access_frequency, serialization", []),
        ("from cachetronomy.core.utils.key_builder import default_key_builder", []),
        ("import cachetronomy; dir(cachetronomy)", []),
        (
            (
                "from cachetronomy import Cachetronaut\n"
                "with Cachetronaut('plain.db') as cache:\n"
                "    cache.set('key', 1, tags=['t'])\n"
                "    cache.get('key'); cache.stats(); cache.clear_by_tags('t')\n"
                "    cache.get_or_set('key', lambda: 1)\n"
                "    cache.health_check(); cache.time_to_live"
            ),
            [],
        ),
        ("from cachetronomy import Cachetronaut; Cachetronaut(':memory:', profile='p')", []),
        ("open('.env', 'w').write('A=b'); import cachetronomy; cachetronomy.Cachetronaut()", []),
        ("from cachetronomy import Profile", ["pydantic"]),
        ("from cachetronomy import Cachetronaut; Cachetronaut(':memory:').profile", ["pydantic"]),
    ],
)
def test_only_what_needs_pydantic_loads_it(
    run_python: Callable[..., object], code: str, loaded: list[str]
) -> None:
    assert run_python(LOADED.format(code=code)).stdout == f"{loaded}\n"  # type: ignore[attr-defined]


def test_the_environment_is_read_when_there_is_one(
    run_python: Callable[..., object], tmp_path: Path
) -> None:
    (tmp_path / ".env").write_text("cache_time_to_live=7\n", encoding="utf-8")
    code = "from cachetronomy import Cachetronaut; print(Cachetronaut(':memory:').time_to_live)"
    assert run_python(code).stdout == "7\n"  # type: ignore[attr-defined]


def test_clients_are_cachetronomers(cache: Cachetronaut) -> None:
    assert isinstance(cache, Cachetronomer)
    assert issubclass(Cachetronaut, Cachetronomer)
    with pytest.raises(TypeError, match="abstract"):
        Cachetronomer()
    for name in Cachetronomer.__abstractmethods__:
        assert callable(getattr(cache, name))


def test_a_cachetronomer_of_ones_own_has_to_have_all_methods():
    methods = dict.fromkeys(Cachetronomer.__abstractmethods__, lambda self: None)
    assert type("Own", (Cachetronomer,), methods)() is not None
    del methods["shutdown"]
    with pytest.raises(TypeError, match="shutdown"):
        type("Own", (Cachetronomer,), methods)()


def test_now_is_in_utc():
    assert _now().tzinfo is timezone.utc
    assert abs(_now() - datetime.now(timezone.utc)) < timedelta(seconds=30)


def function(a: int, *rest: int, b: str = "x", **more: object) -> None:
    """Be cached."""


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [((1,), {}), ([1], {"b": "y"}), ((), {"a": 1}), ((1, 2, 3), {"c": [4]}), ((b"\x00",), {})],
)
def test_the_default_key_is_that_of_the_decorator(anywhere: Cachetronaut, args, kwargs) -> None:
    expected = anywhere(function).key_for(*args, **kwargs)
    assert default_key_builder(function, args, kwargs) == expected
    assert default_key_builder(fn=function, args=args, kwargs=kwargs) == expected


def test_the_default_key_knows_methods_lambdas_and_coroutines(cache: Cachetronaut) -> None:
    async def coroutine(n: int) -> int:
        return n

    class Class:
        def method(self, n: int) -> int:
            return n

        def __repr__(self) -> str:
            return "Class()"

    calls = [
        (coroutine, (1,)),
        (lambda n: n, (1,)),
        (Class.method, (Class(), 1)),
        (Class().method, (1,)),
    ]
    for one, args in calls:
        assert default_key_builder(one, args, {}) == cache(one).key_for(*args)


def test_arguments_that_do_not_fit_have_no_key() -> None:
    with pytest.raises(TypeError):
        default_key_builder(function, (), {})
    with pytest.raises(TypeError, match="address"):
        default_key_builder(function, (object(),), {})
