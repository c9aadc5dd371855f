"""Values come back equal and of the same type, under the plainest label, or are refused."""

from __future__ import annotations

import collections
import contextlib
import datetime as dt
import decimal
import enum
import fractions
import json
import math
import pathlib
import random
import struct
import sys
import threading
import uuid
import zoneinfo

import pytest
from cachetronomy import _core
from cachetronomy.exceptions import CorruptEntryError, SerializationError
from hypothesis import given
from hypothesis import strategies as st

MAX_DEPTH = 254
SMALL_STACK = 512 * 1024


def assert_same(got, want, way="value"):
    """Equal and of the same type, in every part; NaN equals NaN, and -0.0 is not 0.0."""
    assert type(got) is type(want), way
    if isinstance(want, float):
        assert struct.pack("<d", got) == struct.pack("<d", want) or (
            math.isnan(got) and math.isnan(want)
        ), way
    elif isinstance(want, complex):
        assert_same(got.real, want.real, way + ".real")
        assert_same(got.imag, want.imag, way + ".imag")
    elif isinstance(want, (list, tuple)):
        assert len(got) == len(want), way
        for index, (a, b) in enumerate(zip(got, want, strict=True)):
            assert_same(a, b, f"{way}[{index}]")
    elif isinstance(want, dict):
        assert len(got) == len(want), way
        for (a, x), (b, y) in zip(got.items(), want.items(), strict=True):
            assert_same(a, b, f"{way} key {b!r}")
            assert_same(x, y, f"{way}[{b!r}]")
    elif isinstance(want, (set, frozenset)):
        assert got == want, way
        assert sorted(map(typed_repr, got)) == sorted(map(typed_repr, want)), way
    elif isinstance(want, (dt.datetime, dt.time)):
        assert repr(got) == repr(want), way
        assert got.fold == want.fold, way
    elif isinstance(want, decimal.Decimal):
        assert str(got) == str(want), way
    else:
        assert got == want, way
        if not isinstance(want, int):  # Python refuses to show very long ones.
            assert repr(got) == repr(want), way


def typed_repr(value):
    """A text that tells types apart and does not depend on the order of set members."""
    if isinstance(value, (set, frozenset)):
        return f"{type(value)}{sorted(map(typed_repr, value))}"
    if isinstance(value, tuple):
        return f"{type(value)}{list(map(typed_repr, value))}"
    return f"{type(value)}{value!r}"


def round_trip(value, prefer=None):
    data, fmt = _core.serialize(value, prefer=prefer)
    assert type(data) is bytes
    return _core.deserialize(data, fmt), fmt


def in_thread(work):
    """The result of `work()`, run on a small stack."""
    outcome = []

    def run():
        try:
            outcome.append((work(), None))
        except BaseException as error:
            outcome.append((None, error))

    previous = threading.stack_size(SMALL_STACK)
    try:
        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
    finally:
        threading.stack_size(previous)
    result, error = outcome[0]
    if error is not None:
        raise error
    return result


def nested(depth, wrap=lambda inner: [inner], last=list):
    value = last()
    for _ in range(depth - 1):
        value = wrap(value)
    return value


JSON_VALUES = [
    None,
    True,
    False,
    0,
    -1,
    255,
    2**53 + 1,
    -(2**63),
    2**63 - 1,
    2**63,
    2**64 - 1,
    0.0,
    -0.0,
    1.0,
    0.1 + 0.7,
    1e22,
    -1e300,
    5e-324,
    sys.float_info.max,
    float(2**53),
    float(2**63),
    "",
    "text",
    'quotes " \\ / \n \t \x00 \x1f \x7f',
    "\u2028 \ud7ff \ue000 \uffff \U0010ffff",
    "é",
    "x" * 100_000,
    [],
    {},
    [[], [[]], {}],
    {"b": 1, "a": {"": [1, 1.0, True, None]}, "1": 1},
    [1, 1.0, True],
]

MSGPACK_VALUES = [
    math.nan,
    math.inf,
    -math.inf,
    b"",
    b"\x00\xff",
    b"valid text",
    b"x" * 70_000,
    [1, b"2", 3.0, None],
    {"a": math.nan, "b": -0.0},
    {b"k": 1, "k": 2},
    [b"x" * 3, b"x" * 40, b"x" * 300, "x" * 40, "x" * 300],
    [*list(range(100000)), b""],
]

PARIS = zoneinfo.ZoneInfo("Europe/Paris")
OWN_VALUES = [
    2**64,
    -(2**63) - 1,
    -(2**64),
    2**127,
    -(2**127),
    2**128 - 1,
    10**5000,
    -(10**5000),
    [2**70, 1],
    (),
    (1, (2, [3, ()])),
    [(), []],
    set(),
    {1, "1", 1.5, None, (1, 2), frozenset({2})},
    frozenset(),
    frozenset({frozenset(), b"x"}),
    complex(-0.0, math.inf),
    complex(0.0, -0.0),
    complex(math.nan, 1),
    bytearray(),
    bytearray(b"\x00\xff"),
    dt.date(1, 1, 1),
    dt.date(9999, 12, 31),
    dt.time(),
    dt.time(23, 59, 59, 999_999, fold=1),
    dt.time(1, tzinfo=dt.timezone.utc),
    dt.datetime(2020, 2, 29, 1, 2, 3, 4),
    dt.datetime(2020, 10, 25, 2, 30, tzinfo=PARIS, fold=1),
    dt.datetime(2020, 1, 1, tzinfo=dt.timezone.utc),
    dt.datetime(2020, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=-3, microseconds=1), "odd")),
    dt.timedelta(),
    dt.timedelta.min,
    dt.timedelta.max,
    dt.timedelta(microseconds=-1),
    dt.timezone.utc,
    dt.timezone(dt.timedelta(hours=5, minutes=30)),
    dt.timezone(dt.timedelta(0), "named"),
    PARIS,
    zoneinfo.ZoneInfo("America/Argentina/Buenos_Aires"),
    zoneinfo.ZoneInfo("Etc/GMT+5"),
    decimal.Decimal("1.10"),
    decimal.Decimal("-0E+3"),
    decimal.Decimal("sNaN123"),
    decimal.Decimal("-Infinity"),
    decimal.Decimal("1E-9999"),
    decimal.Decimal(10) ** 40 + 1,
    fractions.Fraction(-1, 3),
    fractions.Fraction(10**40, 3),
    uuid.UUID(int=0),
    uuid.UUID("12345678-1234-5678-1234-567812345678"),
    uuid.uuid1(),
    pathlib.Path("a/b.txt"),
    pathlib.Path("/"),
    pathlib.Path(),
    pathlib.Path("undecodable \udcff"),
    pathlib.PurePosixPath("/x/y"),
    pathlib.PureWindowsPath("C:\\x\\y"),
    "lone \ud800 surrogate",
    ["\udfff", {"\udc80": "\udc80"}],
    {1: "int", 1.5: "float", None: "none", (1, (2,)): "tuple", "1": "str", b"1": "bytes"},
    {True: "bool", 2: [{3: 4}]},
    {frozenset({1}): dt.date(2020, 1, 1), dt.date(2020, 1, 1): uuid.UUID(int=1)},
    {math.inf: 1, 2**70: 2, decimal.Decimal("1.1"): 3},
    [{"when": dt.datetime(2020, 1, 1), "tags": ("a", "b")}] * 3,
]

ALL_VALUES = JSON_VALUES + MSGPACK_VALUES + OWN_VALUES


def short_id(value):
    """By type alone: the repr of a set or of a new UUID differs between two workers."""
    return type(value).__name__


@pytest.mark.parametrize("value", JSON_VALUES, ids=short_id)
def test_plain_values_are_labelled_json_and_come_back(value):
    got, fmt = round_trip(value)
    assert fmt == "json"
    assert_same(got, value)


@pytest.mark.parametrize("value", MSGPACK_VALUES, ids=short_id)
def test_bytes_and_non_finite_floats_are_labelled_msgpack_and_come_back(value):
    got, fmt = round_trip(value)
    assert fmt == "msgpack"
    assert_same(got, value)


@pytest.mark.parametrize("value", OWN_VALUES, ids=short_id)
def test_typed_values_are_labelled_cachetronomy_and_come_back(value):
    got, fmt = round_trip(value)
    assert fmt == "cachetronomy"
    assert_same(got, value)


@pytest.mark.parametrize("value", ALL_VALUES, ids=short_id)
@pytest.mark.parametrize("prefer", ["json", "orjson", "msgpack", "cachetronomy"])
def test_a_preferred_format_is_used_exactly_when_it_carries_the_value(value, prefer):
    default = _core.serialize(value)[1]
    got, fmt = round_trip(value, prefer)
    carriers = {
        "json": {"json", "orjson", "msgpack", "cachetronomy"},
        "msgpack": {"msgpack", "cachetronomy"},
        "cachetronomy": {"cachetronomy"},
    }
    assert fmt == (prefer if prefer in carriers[default] else default)
    assert_same(got, value)


def test_json_has_no_spaces_and_does_not_escape_text():
    data, fmt = _core.serialize({"ä": [1, 2.5, None, True]})
    assert (data, fmt) == ('{"ä":[1,2.5,null,true]}'.encode(), "json")


def test_the_bytes_of_a_typed_value_are_a_contract():
    data, fmt = _core.serialize({(1,): dt.timedelta(1, 2, 3)})
    assert fmt == "cachetronomy"
    assert data == b"\x81\x92\xc7\x00\x01\x01\x94\xc7\x00\x0a\x01\x02\x03"


def test_what_came_back_is_independent_of_what_was_stored():
    value = {"list": [1], "set": {1}, "array": bytearray(b"x")}
    first, _ = round_trip(value)
    first["list"].append(2)
    first["set"].add(2)
    first["array"].append(2)
    assert value == {"list": [1], "set": {1}, "array": bytearray(b"x")}


def test_utc_comes_back_as_the_one_utc():
    assert round_trip(dt.timezone.utc)[0] is dt.timezone.utc
    assert round_trip(PARIS)[0] is PARIS


# What other libraries read.


@pytest.mark.parametrize("value", JSON_VALUES, ids=short_id)
def test_json_rows_are_read_by_the_standard_library(value):
    assert_same(json.loads(_core.serialize(value)[0]), value)


@pytest.mark.parametrize("value", JSON_VALUES, ids=short_id)
def test_orjson_rows_are_read_by_orjson(value):
    orjson = pytest.importorskip("orjson")
    data, fmt = _core.serialize(value, prefer="orjson")
    assert fmt == "orjson"
    assert_same(orjson.loads(data), value)


@pytest.mark.parametrize("value", JSON_VALUES + MSGPACK_VALUES, ids=short_id)
def test_msgpack_rows_are_read_by_msgpack_with_its_defaults(value):
    msgpack = pytest.importorskip("msgpack")
    data, fmt = _core.serialize(value, prefer="msgpack")
    assert fmt == "msgpack"
    assert_same(msgpack.unpackb(data), value)


@pytest.mark.parametrize("value", JSON_VALUES, ids=short_id)
def test_rows_of_other_libraries_are_read(value):
    orjson = pytest.importorskip("orjson")
    msgpack = pytest.importorskip("msgpack")
    assert_same(_core.deserialize(json.dumps(value).encode(), "json"), value)
    assert_same(_core.deserialize(json.dumps(value, indent=1).encode(), "json"), value)
    assert_same(_core.deserialize(orjson.dumps(value), "orjson"), value)
    assert_same(_core.deserialize(msgpack.packb(value), "msgpack"), value)


def test_single_precision_floats_of_foreign_msgpack_are_read():
    msgpack = pytest.importorskip("msgpack")
    assert_same(
        _core.deserialize(msgpack.packb(0.1, use_single_float=True), "msgpack"),
        struct.unpack("<f", struct.pack("<f", 0.1))[0],
    )


# Property tests.

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(),
    st.text(st.characters()),
    st.binary(),
    st.complex_numbers(),
    st.decimals(),
    st.fractions(),
    st.uuids(),
    st.dates(),
    st.times(timezones=st.none() | st.just(dt.timezone.utc)),
    st.timedeltas(),
    st.datetimes(
        timezones=st.none() | st.sampled_from([dt.timezone.utc, PARIS]), allow_imaginary=True
    ),
    st.builds(bytearray, st.binary()),
    st.builds(pathlib.PurePosixPath, st.text()),
)


def is_hashable_and_equal_to_itself(value):
    if isinstance(value, decimal.Decimal):
        return not value.is_nan()
    return not isinstance(value, bytearray) and value == value


# Of values that are equal (1 and True) a set or dict keeps one; which one is Python's business.
HASHABLE = st.recursive(
    SCALARS.filter(is_hashable_and_equal_to_itself),
    lambda inner: st.builds(tuple, st.lists(inner, max_size=3)) | st.frozensets(inner, max_size=3),
    max_leaves=4,
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.builds(tuple, st.lists(inner, max_size=4)),
        st.dictionaries(st.text(max_size=5), inner, max_size=4),
        st.dictionaries(HASHABLE, inner, max_size=3),
        st.sets(HASHABLE, max_size=3),
    ),
    max_leaves=12,
)
PLAIN_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.text()
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: (
        st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=5), inner, max_size=5)
    ),
    max_leaves=20,
)


@given(VALUES, st.sampled_from([None, "json", "orjson", "msgpack", "cachetronomy"]))
def test_any_nested_value_comes_back(value, prefer):
    got, _ = round_trip(value, prefer)
    assert_same(got, value)


@given(PLAIN_VALUES)
def test_any_plain_value_is_json_that_every_reader_agrees_on(value):
    data, fmt = _core.serialize(value)
    assert fmt == "json"
    assert_same(json.loads(data), value)
    assert_same(_core.deserialize(data, fmt), value)
    assert_same(_core.deserialize(json.dumps(value).encode(), fmt), value)


@given(st.floats())
def test_any_float_comes_back_to_the_last_bit(value):
    for prefer in (None, "msgpack"):
        assert_same(round_trip([value], prefer)[0], [value])


# numpy.


def numpy_values(np):
    zeros = np.zeros((2, 0, 3), dtype=np.float32)
    return [
        np.arange(6).reshape(2, 3),
        np.asfortranarray(np.arange(6).reshape(2, 3)),
        np.arange(10)[::2],
        np.array(1.5),
        np.array([math.nan, -0.0], dtype=">f8"),
        np.array([True, False]),
        np.array([1 + 2j], dtype=np.complex64),
        np.array(["a", "bcd\U0010ffff"]),
        np.array([b"a", b"bcd"]),
        np.array(["2020-01-01", "NaT"], dtype="M8[D]"),
        np.array([1, 2], dtype="m8[25us]"),
        np.array([], dtype=np.uint8),
        zeros,
        np.longdouble([1, 2]),
    ]


def test_numpy_arrays_come_back_and_are_writable():
    np = pytest.importorskip("numpy")
    for value in numpy_values(np):
        got, fmt = round_trip({"array": value})
        got = got["array"]
        assert fmt == "cachetronomy"
        assert type(got) is np.ndarray
        assert (got.dtype, got.shape) == (value.dtype, value.shape)
        assert got.tobytes() == value.tobytes()
        assert got.flags.writeable
        assert got.flags.owndata


def test_numpy_scalars_come_back():
    np = pytest.importorskip("numpy")
    scalars = [
        np.int8(-1),
        np.uint64(2**64 - 1),
        np.float16(0.1),
        np.float64(-0.0),
        np.bool_(True),
        np.complex128(1j),
        np.datetime64("2020-01-01T00:00", "ns"),
        np.timedelta64(3, "s"),
        np.str_(""),
        np.str_("text\0"),
        np.str_("\ud800"),
        np.bytes_(b""),
        np.bytes_(b"a\0"),
        np.longdouble(1) / 3,
    ]
    for value in scalars:
        got, fmt = round_trip(value)
        assert fmt == "cachetronomy"
        assert (type(got), got.dtype) == (type(value), value.dtype)
        assert got == value
        assert np.signbit(got) == np.signbit(value) if isinstance(value, np.floating) else True


def test_numpy_objects_and_records_are_refused():
    np = pytest.importorskip("numpy")
    refused = [
        np.array([object()]),
        np.zeros(1, dtype=[("a", int)]),
        np.void(b"x"),
        np.zeros(1, dtype=[("a", int)])[0],
        np.array([None]),
    ]
    for value in refused:
        with pytest.raises(SerializationError, match=r"value\['a'\] has the numpy data type"):
            _core.serialize({"a": value})
    for value in [np.ma.array([1]), np.rec.array([(1,)], dtype=[("a", int)])]:
        with pytest.raises(SerializationError, match=r"^value is of type numpy\."):
            _core.serialize(value)


def test_numpy_rows_that_do_not_add_up_are_corrupt():
    np = pytest.importorskip("numpy")
    good, _ = _core.serialize(np.arange(3, dtype="<i4"))
    assert _core.deserialize(good, "cachetronomy").tolist() == [0, 1, 2]
    for old, new in [
        (b"<i4", b"|O8"),
        (b"<i4", b"|V4"),
        (b"<i4", b"i,i"),
        (b"<i4", b"<i8"),
        (b"<i4", b"<i9"),
        (b"<i4", b"<U0"),
        (b"\xc7\x00\x01\x03", b"\xc7\x00\x01\x04"),
        (b"\xc7\x00\x01\x03", b"\xc7\x00\x01\xff"),
        (b"\xc7\x00\x01\x03", b"\xc7\x00\x01\xc0"),
    ]:
        assert good.count(old) == 1
        with pytest.raises(CorruptEntryError):
            _core.deserialize(good.replace(old, new), "cachetronomy")


def test_numpy_shapes_that_overflow_are_corrupt():
    pytest.importorskip("numpy")
    shape = b"\x93\xc7\x00\x01" + b"\xcf" + b"\xff" * 8 + b"\xcf" + b"\xff" * 8
    for dtype in (b"<i4", b"<U0", b"|S0"):
        for code in (b"\x14", b"\x15"):
            data = b"\x94\xc7\x00" + code + b"\xa3" + dtype + shape + b"\xc4\x00"
            with pytest.raises(CorruptEntryError):
                _core.deserialize(data, "cachetronomy")


# What is refused.


class Colour(enum.IntEnum):
    RED = 1


class Text(str):
    pass


class Point(collections.namedtuple("Point", "x y")):
    pass


class Zone(dt.tzinfo):
    pass


REFUSED = [
    (object(), "object"),
    (Colour.RED, "int"),
    (Text("x"), "str"),
    (Point(1, 2), "tuple"),
    (collections.OrderedDict(a=1), "dict"),
    (collections.defaultdict(list), "dict"),
    (collections.Counter("a"), "dict"),
    (collections.deque([1]), "deque"),
    (range(3), "range"),
    (memoryview(b"x"), "memoryview"),
    (..., "ellipsis"),
    (NotImplemented, "NotImplementedType"),
    (lambda: 1, "function"),
    (int, "type"),
    (iter([]), "list_iterator"),
    (json, "module"),
]


@pytest.mark.parametrize(("value", "named"), REFUSED, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("prefer", [None, "msgpack", "cachetronomy"])
def test_other_types_are_refused_with_type_place_and_advice(value, named, prefer):
    with pytest.raises(SerializationError) as raised:
        _core.serialize({"a": [1, 2, {"b": value}]}, prefer=prefer)
    message = str(raised.value)
    assert message.startswith("value['a'][2]['b'] is of type ")
    assert type(value).__qualname__ in message
    assert named in message
    assert "convert it to a plain" in message


def test_a_refused_value_says_where_it_sits():
    for value, place in [
        (object(), "value is of type object"),
        ([[object()]], "value[0][0] is of type"),
        ((1, object()), "value[1] is of type"),
        ({1: {"b": object()}}, "value[1]['b'] is of type"),
        ({dt.date(2020, 1, 1): object()}, "value[datetime.date(2020, 1, 1)] is of type"),
        ({"x": {object()}}, "value['x'] (a member) is of type"),
        ({"x": {object(): 1}}, "value['x'] (a key) is of type"),
        ({"x": {(1, object()): 1}}, "value['x'] (a key)[1] is of type"),
        ([dt.time(tzinfo=Zone())], "value[0] (a part of a Time) is of type"),
        ({"k" * 1000: object()}, "value['" + "k" * 59 + "...] is of type"),
    ]:
        with pytest.raises(SerializationError) as raised:
            _core.serialize(value)
        assert str(raised.value).startswith(place)


def test_a_zone_that_was_read_from_a_file_is_refused():
    def with_key(key):
        tzpath = next(
            pathlib.Path(p) / "Europe/Paris"
            for p in zoneinfo.TZPATH
            if (pathlib.Path(p) / "Europe/Paris").exists()
        )
        with tzpath.open("rb") as file:
            return zoneinfo.ZoneInfo.from_file(file, key)

    if not any((pathlib.Path(p) / "Europe/Paris").exists() for p in zoneinfo.TZPATH):
        pytest.skip("no time zone files")
    for key in (None, "../x"):
        with pytest.raises(SerializationError, match="ZoneInfo without a key"):
            _core.serialize(with_key(key))


def test_a_path_never_comes_back_as_another_path():
    for text in ("./c:x", "c:x", "//a/b/c", "a:b", "."):
        path = pathlib.PureWindowsPath(text)
        try:
            got, _ = round_trip(path)
        except SerializationError as error:
            assert "is a path that differs" in str(error)  # noqa: PT017
        else:
            assert_same(got, path)


def test_keys_of_refused_types_are_refused_and_never_turned_into_text():
    for key in (Colour.RED, Text("x"), Point(1, 2), object()):
        with pytest.raises(SerializationError, match=r"\(a key\)"):
            _core.serialize({"a": 1, key: 2})


def test_code_of_a_refused_object_does_not_run():
    class Trap:
        def __getattribute__(self, name):
            raise AssertionError(name)

        def __repr__(self):
            raise AssertionError

    with pytest.raises(SerializationError, match="Trap"):
        _core.serialize({"a": Trap()})


def test_a_container_that_changes_while_it_is_stored_is_an_error_or_consistent():
    stop = threading.Event()
    shared = {
        "list": list(range(50)),
        "dict": {str(i): i for i in range(50)},
        "set": set(range(50)),
        "zone": [dt.datetime(2020, 1, 1, tzinfo=PARIS)] * 5,
    }

    def change():
        rng = random.Random(1)
        while not stop.is_set():
            number = rng.randrange(100)
            shared["dict"].pop(str(number), None)
            shared["dict"][str(number + 1)] = number
            shared["set"].symmetric_difference_update({number})
            if len(shared["list"]) > 20:
                shared["list"].pop()
            else:
                shared["list"].extend(range(50))

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    thread = threading.Thread(target=change)
    thread.start()
    try:
        for _ in range(2000):
            try:
                got, _ = round_trip(shared)
            except SerializationError as error:
                assert "changed while" in str(error)  # noqa: PT017
            else:
                assert set(got) == set(shared)
    finally:
        stop.set()
        thread.join()
        sys.setswitchinterval(interval)


# Depth.

WRAPS = {
    "list": (lambda inner: [inner], list),
    "dict": (lambda inner: {"k": inner}, dict),
    "tuple": (lambda inner: (inner,), tuple),
    "list-msgpack": (lambda inner: [b"", inner], list),
    "frozenset": (lambda inner: frozenset([inner]), frozenset),
}


@pytest.mark.parametrize("name", ["list", "dict", "tuple", "list-msgpack", "frozenset"])
def test_the_deepest_value_comes_back_on_a_small_stack(name):
    wrap, last = WRAPS[name]
    deepest = nested(MAX_DEPTH, wrap, last)
    for prefer in (None, "msgpack", "cachetronomy"):
        got, _ = in_thread(lambda prefer=prefer: round_trip(deepest, prefer))
        assert got == deepest


@pytest.mark.parametrize("name", ["list", "dict", "tuple", "list-msgpack", "frozenset"])
@pytest.mark.parametrize("depth", [MAX_DEPTH + 1, 400, 100_000])
def test_a_deeper_value_is_refused_on_a_small_stack(name, depth):
    if name == "frozenset" and depth > 400:
        pytest.skip("Python itself cannot hash it")
    value = nested(depth, *WRAPS[name])
    for prefer in (None, "msgpack", "cachetronomy"):
        with pytest.raises(SerializationError, match="nested deeper than 254"):
            in_thread(lambda prefer=prefer: _core.serialize(value, prefer=prefer))
    while value and name in ("list", "list-msgpack", "dict"):
        value = value["k"] if name == "dict" else value[-1]


def test_a_typed_leaf_counts_for_the_arrays_it_is_written_as():
    def holding(leaf, depth):
        return nested(depth, last=lambda: [leaf])

    moment = dt.datetime(2020, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=1)))
    assert round_trip(holding(moment, MAX_DEPTH - 3))[0] == holding(moment, MAX_DEPTH - 3)
    with pytest.raises(SerializationError, match="nested deeper"):
        _core.serialize(holding(moment, MAX_DEPTH - 2))


def test_a_value_that_contains_itself_is_refused():
    in_list = []
    in_list.append(in_list)
    in_dict = {}
    in_dict["self"] = in_dict
    in_tuple = ([],)
    in_tuple[0].append(in_tuple)
    for value in (in_list, in_dict, in_tuple):
        for prefer in (None, "msgpack", "cachetronomy"):
            with pytest.raises(SerializationError, match="contains itself"):
                in_thread(lambda value=value, prefer=prefer: _core.serialize(value, prefer=prefer))
    in_list.clear()
    in_dict.clear()
    in_tuple[0].clear()


def test_foreign_json_may_nest_deeper_up_to_a_limit():
    for depth in (MAX_DEPTH + 1, 500):
        data = b"[" * depth + b"]" * depth
        assert in_thread(lambda data=data: _core.deserialize(data, "json")) == nested(depth)
    for opening, closing in ((b"[", b"]"), (b'{"":', b"1}")):
        for depth in (1001, 1_000_000):
            for data in (opening * depth, opening * depth + closing * depth):
                with pytest.raises(CorruptEntryError):
                    in_thread(lambda data=data: _core.deserialize(data, "json"))


def test_brackets_inside_of_strings_are_no_nesting():
    value = {"text": '["\\[{' * 2000, "big": 2**70}
    assert _core.deserialize(json.dumps(value).encode(), "json") == value


# Foreign rows.


@pytest.mark.parametrize("fmt", ["json", "orjson"])
@pytest.mark.parametrize(
    "text",
    [
        "NaN",
        "Infinity",
        "[-Infinity, 1]",
        "18446744073709551616",
        "-9223372036854775809",
        '{"a": [' + "9" * 400 + "]}",
        "1" + "0" * 30,
        "1e400",
        "-1e400",
        "1" + "0" * 400 + ".5",
        '"\\ud800"',
        '{"\\udfff": "\\ud83d"}',
        '"\\ud83d\\ude00"',
        "-0",
        "-0.0",
        "0e5",
        " \n[1 , 2 ]\t",
        '{"a": 1, "b": 2, "a": 3}',
        "9223372036854775808.0",
        "9007199254740993.0",
        "123456789012345678901234567890e-10",
    ],
    ids=lambda text: text[:24],
)
def test_foreign_json_is_read_as_python_reads_it(text, fmt):
    assert_same(_core.deserialize(text.encode(), fmt), json.loads(text))


@given(
    st.from_regex(r"-?(0|[1-9][0-9]{0,40})(\.[0-9]{1,30})?([eE][+-]?[0-9]{1,3})?", fullmatch=True)
)
def test_any_json_number_is_read_as_python_reads_it(text):
    assert_same(_core.deserialize(f"[{text}]".encode(), "json"), json.loads(f"[{text}]"))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b" ",
        b"nul",
        b"[1,]",
        b"{1:2}",
        b"'a'",
        b"[1] [2]",
        b"1 x",
        b'"\xff"',
        b'"\x01"',
        b"\xff\xfe[\x00]\x00",
        b"01",
        b"+1",
        b".5",
        b"1.",
        b"9" * 5000,
        b'{"a":1',
        b'"\\x"',
        b"\x00",
    ],
)
def test_malformed_json_is_a_corrupt_entry(data):
    for fmt in ("json", "orjson"):
        with pytest.raises(CorruptEntryError, match=f'"{fmt}"'):
            _core.deserialize(data, fmt)


@pytest.mark.parametrize("fmt", ["", "pickle", "JSON", "json ", "msgpack\0", "\N{SNOWMAN}"])
def test_an_unknown_format_is_a_corrupt_entry(fmt):
    with pytest.raises(CorruptEntryError, match="format"):
        _core.deserialize(b"1", fmt)


# Hostile rows.


def typed(code, *parts):
    return bytes([0x91 + len(parts), 0xC7, 0, code]) + b"".join(parts)


DATE, TIME, DATETIME, DELTA, ZONE, KEY, DECIMAL, FRACTION, UUID = 7, 8, 9, 10, 11, 12, 13, 14, 15


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        b"\xc7\x00\x01",
        b"\x92\xc0\xc7\x00\x01",
        b"\x81\xc7\x00\x01\xc0",
        b"\x91\xc7\x00\x63",
        b"\x91\xd6\xff\x00\x00\x00\x00",
        b"\x91\xc7\x01\x01\x00",
        b"\xc0\xc0",
        b"\xa1\xff",
        b"\xd9\x01\xff",
        b"\x81\x90\xc0",
        b"\x81\x80\xc0",
        typed(2, b"\x90"),
        typed(3, b"\x80"),
        typed(4),
        typed(4, b"\x01", b"\x02"),
        typed(5, b"\xa1a"),
        typed(6, b"\xa1a"),
        typed(6),
        typed(DATE, b"\xcd\x07\xe4", b"\x0d", b"\x01"),
        typed(DATE, b"\x01", b"\x01"),
        typed(DATE, b"\xc4\x04\x07\xe4\x01\x01"),
        typed(DATE, b"\xcf" + b"\xff" * 8, b"\x01", b"\x01"),
        typed(DATETIME, b"\xc4\x0a\x07\xe4\x01\x01\x00\x00\x00\x00\x00\x00"),
        typed(DATETIME, b"\x01", b"\x0d", *[b"\x01"] * 6, b"\xc0"),
        typed(DATETIME, *[b"\x01"] * 7, b"\x02", b"\xc0"),
        typed(DATETIME, *[b"\x01"] * 8, b"\x01"),
        typed(DATETIME, *[b"\x01"] * 8, b"\xa3UTC"),
        typed(DATETIME, *[b"\x01"] * 10),
        typed(TIME, b"\x18", b"\x00", b"\x00", b"\x00", b"\x00", b"\xc0"),
        typed(DELTA, b"\xce\xff\xff\xff\xff", b"\x00", b"\x00"),
        typed(DELTA, b"\xcb\x7f\xf0\x00\x00\x00\x00\x00\x00", b"\x00", b"\x00"),
        typed(ZONE),
        typed(ZONE, b"\x01"),
        typed(ZONE, typed(DELTA, b"\x02", b"\x00", b"\x00")),
        typed(ZONE, typed(DELTA, b"\x00", b"\x00", b"\x00"), b"\x01"),
        typed(KEY, b"\xa7No/Such"),
        typed(KEY, b"\xab../../passwd"[:13]),
        typed(KEY, b"\xa9/etc/zone"),
        typed(KEY, b"\xa3a.b"),
        typed(KEY, b"\xa0"),
        typed(KEY, b"\xc0"),
        typed(DECIMAL, b"\xa3abc"),
        typed(DECIMAL, b"\x01"),
        typed(FRACTION, b"\x01", b"\x00"),
        typed(FRACTION, b"\xa11", b"\x01"),
        typed(UUID, b"\xc4\x03abc"),
        typed(UUID, b"\xa3abc"),
        typed(16, b"\x01"),
        typed(17, b"\xc4\x01a"),
        typed(18),
        typed(19, b"\xc4\x01\xff"),
        typed(20, b"\xc0", b"\xc0", b"\xc0"),
        typed(21, b"\xa3<i4", b"\x90", b"\xc4\x00"),
    ],
    ids=lambda data: data.hex()[:40],
)
def test_malformed_typed_arrays_are_corrupt_entries(data):
    with pytest.raises(CorruptEntryError, match='"cachetronomy"'):
        _core.deserialize(data, "cachetronomy")


def test_a_corrupt_entry_names_the_cause():
    with pytest.raises(CorruptEntryError, match="month must be in") as raised:
        _core.deserialize(typed(DATE, b"\x01", b"\x0d", b"\x01"), "cachetronomy")
    assert type(raised.value.__cause__) is ValueError


def test_typed_arrays_mean_nothing_in_plain_msgpack():
    data, _ = _core.serialize((1, 2))
    with pytest.raises(CorruptEntryError, match='"msgpack"'):
        _core.deserialize(data, "msgpack")


@pytest.mark.parametrize("fmt", ["msgpack", "cachetronomy"])
def test_claimed_lengths_of_four_gigabytes_are_corrupt_entries(fmt):
    for header in (0xDB, 0xC6, 0xDD, 0xDF, 0xC9):
        for rest in (b"", b"\x01", b"\x01" * 100):
            data = bytes([header]) + b"\xff" * 4 + rest
            for wrapped in (data, b"\x91" + data, b"\x91" * 200 + data):
                with pytest.raises(CorruptEntryError):
                    in_thread(lambda data=wrapped: _core.deserialize(data, fmt))


@pytest.mark.parametrize(
    "byte", [b"[", b"\x91", b"\x81", b"\xdd", b"\xdf", b"\xc7", b"{", b'"', b"\x9f"]
)
@pytest.mark.parametrize("fmt", ["json", "orjson", "msgpack", "cachetronomy"])
def test_a_megabyte_of_openings_is_no_value(byte, fmt):
    if fmt in ("msgpack", "cachetronomy") and byte in b'["{':
        byte = b"\xdc"
    with pytest.raises(CorruptEntryError):
        in_thread(lambda: _core.deserialize(byte * 1_000_000, fmt))


def test_a_megabyte_of_nested_markers_is_no_value():
    with pytest.raises(CorruptEntryError):
        in_thread(lambda: _core.deserialize(b"\x92\xc7\x00\x01" * 250_000, "cachetronomy"))


SAMPLE = {
    "plain": [1, -1, 1.5, None, True, "text", b"bytes", 2**64 - 1],
    "typed": (2**80, {1, 2}, 1j, bytearray(b"x"), decimal.Decimal("1.5"), fractions.Fraction(1, 3)),
    "when": [dt.datetime(2020, 1, 1, tzinfo=PARIS), dt.time(1), dt.timedelta(1), dt.timezone.utc],
    "names": [uuid.UUID(int=5), pathlib.PurePosixPath("a"), "\ud800", {(1, 2): {3: 4}}],
}
PLAIN_SAMPLE = {"a": [1, -1, 1.5e10, None, True, "t\u00e9xt\n"], "b": {"c": [[], {}]}}
SAMPLES = [
    _core.serialize(SAMPLE),
    _core.serialize({**PLAIN_SAMPLE, "bytes": b"x" * 40}),
    _core.serialize(PLAIN_SAMPLE),
    _core.serialize(PLAIN_SAMPLE, prefer="orjson"),
]


@pytest.mark.parametrize(("data", "fmt"), SAMPLES, ids=[fmt for _, fmt in SAMPLES])
def test_every_truncation_is_a_corrupt_entry(data, fmt):
    for end in range(len(data)):
        with pytest.raises(CorruptEntryError):
            _core.deserialize(data[:end], fmt)


@pytest.mark.parametrize(("data", "fmt"), SAMPLES, ids=[fmt for _, fmt in SAMPLES])
def test_bytes_after_the_value_are_a_corrupt_entry(data, fmt):
    for extra in (b"1", b"\xc1", b"\x93", b"]", b"\x00"):
        with pytest.raises(CorruptEntryError):
            _core.deserialize(data + extra, fmt)


def read_or_corrupt(data, fmt):
    with contextlib.suppress(CorruptEntryError):
        _core.deserialize(data, fmt)


@given(st.sampled_from(SAMPLES), st.data())
def test_mutated_rows_are_read_or_corrupt(sample, draw):
    data, fmt = sample
    changed = bytearray(data)
    for _ in range(draw.draw(st.integers(1, 6))):
        place = draw.draw(st.integers(0, len(changed) - 1))
        action = draw.draw(st.sampled_from(["set", "insert", "delete"]))
        if action == "set":
            changed[place] = draw.draw(st.integers(0, 255))
        elif action == "insert":
            changed.insert(place, draw.draw(st.integers(0, 255)))
        elif len(changed) > 1:
            del changed[place]
    read_or_corrupt(bytes(changed), fmt)


@given(st.binary(max_size=200), st.sampled_from(["json", "orjson", "msgpack", "cachetronomy"]))
def test_random_bytes_are_read_or_corrupt(data, fmt):
    read_or_corrupt(data, fmt)


@given(st.integers(1, 21), st.binary(max_size=60), st.integers(0, 12))
def test_random_parts_of_typed_arrays_are_read_or_corrupt(code, parts, count):
    read_or_corrupt(bytes([0x91 + count, 0xC7, 0, code]) + parts, "cachetronomy")


def test_many_random_changes_of_rows_are_read_or_corrupt():
    rng = random.Random(5)
    for data, fmt in SAMPLES:
        for _ in range(5000):
            changed = bytearray(data)
            for _ in range(rng.randint(1, 4)):
                changed[rng.randrange(len(changed))] = rng.randrange(256)
            read_or_corrupt(bytes(changed), fmt)
