"""Formats that a program adds are written on request, and read by their name."""

from __future__ import annotations

import gc
import itertools
import pickle
import threading
import weakref
import zlib

import pytest
from cachetronomy import _core
from cachetronomy.exceptions import CorruptEntryError, InvalidSettingError, SerializationError

pytestmark = pytest.mark.both_clients


COUNT = itertools.count()


@pytest.fixture
def name():
    """Name a format that no other test has: the registry is of the process."""
    return f"format {next(COUNT)}"


def test_a_value_is_written_and_read_by_the_format_it_prefers(name, tier, open_cache):
    _core.register_serializer(name, pickle.dumps, pickle.loads)
    value = {"deque": range(5), "plain": 1}
    cache = open_cache()
    cache.set("key", value, prefer=name)
    cache.set_many({"a": value, "b": 2}, prefer=name)
    assert _core.serialize(value, prefer=name) == (pickle.dumps(value), name)
    reader = tier(cache)
    assert reader.get("key") == value
    assert reader.get_many(["a", "b"]) == {"a": value, "b": 2}


def test_a_decorated_function_keeps_its_results_in_the_format(name, open_cache, query, db_path):
    _core.register_serializer(name, pickle.dumps, pickle.loads)
    calls = []

    def compute(n):
        calls.append(n)
        return range(n)

    for _ in range(2):
        cache = open_cache()
        assert cache(prefer=name)(compute)(3) == range(3)
        cache.close()
    assert calls == [3]
    assert query(db_path, "SELECT fmt FROM cache") == [[name]]


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, lambda data: memoryview(data)[::1]])
def test_dumps_may_return_any_kind_of_bytes(name, kind):
    _core.register_serializer(name, lambda _: kind(b"\x00\xffx"), lambda data: data)
    assert _core.serialize(1, prefer=name) == (b"\x00\xffx", name)
    got = _core.deserialize(b"\x00\xffx", name)
    assert (type(got), got) == (bytes, b"\x00\xffx")


def test_a_view_of_every_other_byte_is_written_as_it_reads(name):
    _core.register_serializer(name, lambda _: memoryview(b"abcdef")[::2], bytes.decode)
    assert _core.serialize(1, prefer=name) == (b"ace", name)


@pytest.mark.parametrize("made", ["text", None, 1, [b"x"]], ids=repr)
def test_dumps_that_returns_no_bytes_is_an_error_that_names_the_format(name, made, cache):
    _core.register_serializer(name, lambda _: made, bytes)
    with pytest.raises(SerializationError, match=f"{name}.*{type(made).__name__}.*must return"):
        cache.set("key", 1, prefer=name)
    assert cache.store_keys() == []


def test_a_value_that_dumps_raises_for_is_written_in_a_built_in_format(name):
    def dumps(_value):
        raise ValueError

    _core.register_serializer(name, dumps, bytes)
    assert _core.serialize([1], prefer=name) == (b"[1]", "json")
    assert _core.serialize(b"x", prefer=name)[1] == "msgpack"
    assert _core.serialize((1,), prefer=name)[1] == "cachetronomy"
    with pytest.raises(SerializationError, match="value is of type object"):
        _core.serialize(object(), prefer=name)


@pytest.mark.parametrize("error", [MemoryError, KeyboardInterrupt])
def test_errors_of_the_process_pass(name, error):
    def fail(_value):
        raise error

    _core.register_serializer(name, fail, fail)
    with pytest.raises(error):
        _core.serialize(1, prefer=name)
    with pytest.raises(error):
        _core.deserialize(b"", name)


def test_bytes_that_loads_raises_for_are_a_miss(name, open_cache):
    def loads(_data):
        raise LookupError(42)

    _core.register_serializer(name, lambda _: b"x", loads)
    cache = open_cache()
    cache.set("key", 1, prefer=name)
    cache.set("other", 2)
    cache.evict_all()
    assert cache.get("key", default="miss") == "miss"
    assert cache.get_many(["key", "other"]) == {"other": 2}
    with pytest.raises(CorruptEntryError, match=f"{name}.*42") as raised:
        _core.deserialize(b"x", name)
    assert type(raised.value.__cause__) is LookupError


def test_a_format_that_this_process_does_not_have_is_a_miss(name, open_cache, run_python, db_path):
    _core.register_serializer(name, zlib.compress, zlib.decompress)
    open_cache().set("key", b"x", prefer=name)
    code = """
import sys
from cachetronomy import Cachetronaut
with Cachetronaut(sys.argv[1]) as cache:
    print(cache.get("key", default="miss"))
"""
    assert run_python(code, db_path).stdout == "miss\n"


def test_a_name_registered_again_has_the_new_functions(name, open_cache):
    _core.register_serializer(name, lambda _: b"1", lambda _: "old")
    cache = open_cache()
    decorated = cache(prefer=name)(lambda: "new")
    _core.register_serializer(name, lambda _: b"2", lambda data: ["new", data])
    decorated()
    cache.evict_all()
    assert decorated() == ["new", b"2"]


@pytest.mark.parametrize("taken", ["json", "orjson", "msgpack", "cachetronomy"])
def test_the_built_in_names_are_taken(taken):
    with pytest.raises(InvalidSettingError, match=f"{taken}.*built-in"):
        _core.register_serializer(taken, bytes, bytes)
    assert _core.serialize([1], prefer="json") == (b"[1]", "json")


@pytest.mark.parametrize("wrong", ["", None, 1, b"bytes", "\ud800"], ids=ascii)
def test_a_name_must_be_text(wrong):
    with pytest.raises(InvalidSettingError, match="is not a name"):
        _core.register_serializer(wrong, bytes, bytes)


@pytest.mark.parametrize("wrong", [None, 1, b"x", "dumps"], ids=repr)
def test_functions_must_be_callable(name, wrong):
    with pytest.raises(InvalidSettingError, match=r"dumps: .* cannot be called"):
        _core.register_serializer(name, wrong, bytes)
    with pytest.raises(InvalidSettingError, match=r"loads: .* cannot be called"):
        _core.register_serializer(name, bytes, wrong)
    with pytest.raises(InvalidSettingError, match="is not a format"):
        _core.serialize(1, prefer=name)


def test_an_unknown_format_cannot_be_preferred(cache):
    for unknown in ("pickle", "", "JSON"):
        with pytest.raises(InvalidSettingError, match=r"is not a format.*register"):
            cache.set("key", 1, prefer=unknown)


def test_replaced_functions_are_dropped_and_may_register_while_they_are(name):
    class Function:
        def __call__(self, _value):
            return b""

        def __del__(self):
            _core.register_serializer(name + " of a destructor", bytes, bytes)

    function = Function()
    reference = weakref.ref(function)
    _core.register_serializer(name, function, bytes)
    del function
    _core.register_serializer(name, bytes, bytes)
    gc.collect()
    assert reference() is None
    assert _core.serialize(b"x", prefer=name + " of a destructor") == (
        b"x",
        name + " of a destructor",
    )


def test_a_format_may_use_the_cache_itself(name):
    def dumps(value):
        return _core.serialize(value)[0]

    def loads(data):
        _core.register_serializer(name, dumps, loads)
        return _core.deserialize(data, "json")

    _core.register_serializer(name, dumps, loads)
    assert _core.deserialize(*_core.serialize([1], prefer=name)) == [1]


def test_threads_register_write_and_read_at_once(name):
    _core.register_serializer(name, lambda _: b"0", lambda data: data)
    failed = []

    def work(number):
        try:
            for turn in range(300):
                made = b"%d" % (number * 1000 + turn)
                _core.register_serializer(name, lambda _, made=made: made, lambda data: data)
                data, label = _core.serialize(None, prefer=name)
                assert label == name
                assert _core.deserialize(data, label) == data
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
