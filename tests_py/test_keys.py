"""The keys of decorated calls: the same for one call, different for any two different ones."""

from __future__ import annotations

import copy
import dataclasses
import enum
import functools
import math
import os
import weakref
from collections import defaultdict, deque
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
from cachetronomy import Cachetronaut, InvalidKeyError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from subprocess import CompletedProcess


def counted(cache: Any, **options: Any) -> tuple[Any, list[tuple[Any, ...]]]:
    """Decorate a function that lists its calls."""
    calls: list[tuple[Any, ...]] = []

    @cache(**options)
    def function(a: Any, b: Any = 2, *rest: Any, c: Any = 3, **named: Any) -> str:
        calls.append((a, b, rest, c, named))
        return f"result {len(calls)}"

    return function, calls


def test_the_key_names_module_qualname_and_bound_arguments(anywhere: Cachetronaut) -> None:
    calls: list[int] = []

    def original(a: Any, b: Any = 2, *rest: Any, c: Any = 3, **named: Any) -> None: ...

    function = anywhere(original, condition=calls.append)
    place = "test_the_key_names_module_qualname_and_bound_arguments.<locals>.original"
    name = f"{__name__}.{place}"
    key = f"{name}(a=1, b=2, rest=(,), c=3, named={{}})"
    assert function.key_for(1) == key
    anywhere(original)(1)
    assert anywhere.all_keys() == [key]
    assert function.key_for("1", 2.0, True, None, c=b"x", z=1, y=[2]) == (
        f"{name}(a='1', b=2.0, rest=(True, None,), c=b'x', named={{\"y\": [2], \"z\": 1}})"
    )
    assert calls == [], "key_for computes nothing"
    with pytest.raises(TypeError, match="original"):
        function.key_for()


class Color(enum.Enum):
    """Members print unlike values."""

    RED = 1


@dataclasses.dataclass
class Point:
    """Its repr tells its value."""

    x: int


DIFFERENT: list[Any] = [
    *(1, 1.0, True, "1", b"1", 1j, None, "None", 0, 0.0, -0.0, False, "", b"", math.nan, math.inf),
    *([], (), {}, set(), frozenset(), [1], (1,), {1}, frozenset({1}), {1: 1}, {"1": 1}, ["1"]),
    *([[1]], [(1,)], [1, 1], (1, 1), ["1, 1"], "[1]", "a=1", "1, b=2", "'", '"', "\\", "\n", "\\n"),
    *(Color.RED, Point(1), Point(2), int, "Color.RED", 10**30, {"a": 1, "b": 2}, {"a": 12}),
    *(
        10**5000,
        timedelta(1),
        range(3),
        range(0, 3, 2),
        "\ud800",
        "x" * 600,
        "x" * 601,
        "x" * 599 + "y",
    ),
]


def test_no_two_different_arguments_share_a_key(anywhere: Cachetronaut) -> None:
    function, calls = counted(anywhere)
    keys = [function.key_for(value) for value in DIFFERENT]
    assert len(set(keys)) == len(DIFFERENT)
    results = [function(value) for value in DIFFERENT]
    assert len(calls) == len(set(results)) == len(DIFFERENT)
    assert [function(value) for value in reversed(DIFFERENT)] == results[::-1]
    assert [function(a=value) for value in DIFFERENT] == results
    assert len(calls) == len(DIFFERENT)


def test_where_an_argument_goes_is_part_of_the_key(anywhere: Cachetronaut) -> None:
    function, calls = counted(anywhere)
    different = [
        lambda: function(1, 2, 3),
        lambda: function(1, 2, (3,)),
        lambda: function(1, 2, 3, 4),
        lambda: function(1, 2, x=3),
        lambda: function(1, 2, c=4),
        lambda: function(1, 2, **{"x=3, y": 4}),
        lambda: function(1, 2, x=3, y=4),
        lambda: function(1, 2, **{"x, y": 1}),
        lambda: function(1, 2, named={}),
        lambda: function(1, 2, rest=()),
    ]
    assert len({call() for call in different}) == len(different) == len(calls)


def test_equal_dicts_and_sets_share_a_key_in_any_order(anywhere: Cachetronaut) -> None:
    function, calls = counted(anywhere)
    function({"a": 1, "b": {1, 2, 300}})
    function({"b": {300, 2, 1}, "a": 1})
    assert len(calls) == 1


def test_long_keys_are_short_and_readable_and_different(anywhere: Cachetronaut) -> None:
    function, calls = counted(anywhere)
    keys = [function.key_for("é" * 1_000 + end) for end in ("a", "b")]
    assert keys[0] != keys[1]
    for key in keys:
        assert len(key.encode()) <= 512
        assert key.startswith(f"{__name__}.counted.<locals>[calls=#")
        assert "].function(a='éé" in key
        assert len(key.rpartition("#")[2]) == 32
    assert function("é" * 1_000 + "a") == function("é" * 1_000 + "a")
    assert len(calls) == 1


class Shown:
    """Its repr holds its address in some form."""

    def __init__(self, form: str) -> None:
        self.form = form

    def __repr__(self) -> str:
        return self.form.format(id(self))


class Plain:
    """Its repr is an address."""


@pytest.mark.parametrize(
    "argument",
    [
        *(Plain(), [Plain()], {"k": Plain()}, (1, {Plain()}), lambda: 1, iter([1])),
        *(weakref.ref(Plain), defaultdict(lambda: 1), Shown("{0:x}"), Shown("{0}")),
        *(Shown("a <C at 0x{0:x}"), Shown("a <C at 0x1>; b"), functools.partial(lambda: 1)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_argument_known_by_its_address_alone_is_refused(
    anywhere: Cachetronaut, argument: object
) -> None:
    function, calls = counted(anywhere)
    with pytest.raises(TypeError, match=r'"b".*key_builder'):
        function(1, argument)
    assert (calls, anywhere.all_keys()) == ([], [])


class Raising:
    """It cannot be shown."""

    def __repr__(self) -> str:
        raise LookupError("mine")


class Recursing:
    """It cannot be shown either."""

    def __repr__(self) -> str:
        return repr([self])


class Nowhere:
    """Its class says nothing of its module."""

    def __repr__(self) -> str:
        return "nowhere"


Nowhere.__module__ = None  # type: ignore[assignment]


def test_a_value_that_cannot_be_read_is_refused_with_the_cause(anywhere: Cachetronaut) -> None:
    function, calls = counted(anywhere)
    with pytest.raises(TypeError, match=r'"a".*LookupError: mine.*key_builder') as caught:
        function(Raising())
    assert isinstance(caught.value.__cause__, LookupError)
    with pytest.raises(TypeError, match=r'"b".*RecursionError'):
        function(1, [Recursing()])
    with pytest.raises(TypeError, match="nested too deeply"):
        function(recursive())
    assert (calls, anywhere.all_keys()) == ([], [])


def recursive() -> list[Any]:
    """Make a list that holds itself."""
    loop: list[Any] = [1]
    loop.append({"loop": deque([loop])})
    return loop


@dataclasses.dataclass
class Partly:
    """Not all that it declares is a field of each instance."""

    everybodys: ClassVar[object] = Plain()
    x: int
    passed: dataclasses.InitVar[int]
    unset: int = dataclasses.field(init=False)


def test_unusual_arguments_have_keys(anywhere: Cachetronaut) -> None:
    function, _ = counted(anywhere)
    values = [Nowhere(), Partly(1, 2), Partly(2, 2), deque([10**5000]), range(10**5000), 10**5000]
    keys = [function.key_for(value) for value in values]
    assert len(set(keys)) == len(keys)
    assert function.key_for(Partly(1, 3)) == keys[1]


def test_an_int_is_written_alike_whatever_python_may_print(
    run_python: Callable[..., CompletedProcess[str]],
) -> None:
    code = (
        "import sys; from cachetronomy import Cachetronaut\n"
        "function = Cachetronaut(':memory:')(lambda x: x)\n"
        "keys = set()\n"
        "for limit in (0, 640, 100_000):\n"
        "    sys.set_int_max_str_digits(limit)\n"
        "    keys.add(tuple(function.key_for(10**power) for power in (600, 639, 641, 5000)))\n"
        "print(len(keys))\n"
    )
    assert run_python(code).stdout.strip() == "1"


def test_an_argument_that_repeats_itself_is_written_in_reasonable_time(
    anywhere: Cachetronaut,
) -> None:
    def folded(start: Any, *, shared: bool) -> Any:
        for _ in range(8 if not shared else 60):
            start = [start, start if shared else copy.deepcopy(start)]
        return start

    function, _ = counted(anywhere)
    keys = [function.key_for(folded(start, shared=True)) for start in ("a", "b", "a")]
    assert keys[0] == keys[2] != keys[1]
    whole = folded("long " * 30, shared=False)
    memo = copy.deepcopy(whole)
    memo[1] = memo[0]
    assert function.key_for(whole) == function.key_for(memo)


def test_arrays_are_told_by_all_that_they_are(anywhere: Cachetronaut) -> None:
    numpy = pytest.importorskip("numpy")
    function, _ = counted(anywhere)
    ints = numpy.arange(6)
    different = [
        *(ints, ints.astype(">i8"), ints.astype("u8"), ints.astype("i4"), ints.reshape(2, 3)),
        *(ints[:0], ints[:0].reshape(0, 3), ints[:0].reshape(3, 0), numpy.int64(0), ints[:1]),
        *(numpy.array(0), numpy.float64(0.0), numpy.float64(-0.0), numpy.float32(0), 0),
        *(numpy.zeros(2, [("a", "i4"), ("b", "i4")]), numpy.zeros(2, [("a", "i4"), ("c", "i4")])),
        *(numpy.zeros(2, "V8"), numpy.array(["a"]), numpy.array([b"a"]), numpy.array(["a"], "U2")),
        *(numpy.array(0, "M8[s]"), numpy.array(0, "M8[ms]"), numpy.array(0, "m8[s]")),
        *(numpy.ma.array(ints, mask=ints > 3), numpy.ma.array(ints, mask=ints > 4)),
        *(numpy.ma.array(ints), numpy.float64, numpy.float32, numpy.dtype("f8"), float),
        *(numpy.array([1, 2], "g"), numpy.array([1, 3], "g"), numpy.array([1, 2], "G")),
        numpy.rec.array(numpy.zeros(2, [("mask", "i4")])),
    ]
    keys = [function.key_for(value) for value in different]
    assert len(set(keys)) == len(different)
    wide = numpy.arange(12).reshape(3, 4)
    for one, same in (
        (wide[::2, ::-1], wide[::2, ::-1].copy()),
        (numpy.asfortranarray(wide), wide),
        (numpy.broadcast_to(ints[:1], 3), numpy.zeros(3, ints.dtype)),
        (ints.view(), ints),
        (long_doubles(0), long_doubles(255)),
    ):
        assert function.key_for(one) == function.key_for(same)
    for refused in (
        numpy.array([1, None]),
        numpy.zeros(1, [("a", "O")]),
        numpy.random.default_rng(),
    ):
        with pytest.raises(TypeError, match="key_builder"):
            function.key_for(refused)


def long_doubles(padding: int) -> Any:
    """Make two, in memory that was full of one byte."""
    numpy = pytest.importorskip("numpy")
    room = numpy.full(2 * numpy.dtype("g").itemsize, padding, "u1").view("g")
    room[0] = 1 / numpy.longdouble(3)
    room[1] = -0.0
    return room


@pytest.mark.parametrize("package", ["attrs", "msgspec"])
def test_declared_fields_tell_what_the_repr_leaves_out(cache: Cachetronaut, package: str) -> None:
    library = pytest.importorskip(package)
    if package == "attrs":
        make = library.make_class("Account", {"x": library.field(repr=False)})
    else:
        make = library.defstruct("Account", ["x"], namespace={"__repr__": lambda self: "Account()"})
    function, _ = counted(cache)
    assert function.key_for(make(1)) == function.key_for(make(1)) != function.key_for(make("1"))


def test_classes_of_one_name_are_apart(anywhere: Cachetronaut) -> None:
    def make(module: str, name: str = "Thing", shown: str = "2 3") -> Any:
        text = type(name, (), {"__module__": module, "__repr__": lambda self: shown})
        data = dataclasses.make_dataclass(f"Data{name}", ["x"])
        data.__module__ = module
        colors = enum.Enum(f"Color{name}", {"RED": 1}, module=module)
        return [text(), data(1), colors.RED, colors, text, text().__repr__]

    function, _ = counted(anywhere)
    made = [*make("one"), *make("two"), *make("one", "Thing 2", "3")]
    assert len({function.key_for(value) for value in made}) == len(made)


def test_an_inherited_method_is_the_methods_of_two_objects(anywhere: Cachetronaut) -> None:
    @dataclasses.dataclass
    class Base:
        x: int

        @anywhere
        def who(self) -> str:
            return type(self).__name__

        @classmethod
        @anywhere
        def which(cls) -> str:
            return cls.__name__

        @staticmethod
        @anywhere
        def whose() -> str:
            return "everybody's"

    class Child(Base):
        def who_else(self) -> str:
            return super().who()

    assert [Base(1).who(), Child(1).who(), Child(1).who_else()] == ["Base", "Child", "Child"]
    assert [Base.which(), Child.which(), Child(1).which()] == ["Base", "Child", "Child"]
    assert [Base.whose(), Child.whose()] == ["everybody's"] * 2
    assert Base.whose.key_for() == Child(1).whose.key_for()
    with pytest.raises(TypeError, match="put @staticmethod above"):
        anywhere(staticmethod(lambda: 1))


def test_files_that_only_share_a_name_are_no_argument(tmp_path: Path, cache: Cachetronaut) -> None:
    function, _ = counted(cache)
    with (tmp_path / "file").open("w") as file, pytest.raises(TypeError, match="open file"):
        function(file)


def test_hidden_fields_tell_results_of_the_system_apart(cache: Cachetronaut) -> None:
    function, _ = counted(cache)
    one, two = (os.stat_result(range(10), {"st_mtime_ns": ns}) for ns in (1, 2))
    assert function.key_for(one) != function.key_for(two)
    missing = [FileNotFoundError(2, "no such file", name) for name in ("a", "b")]
    assert function.key_for(missing[0]) != function.key_for(missing[1])


def test_a_method_that_calls_its_base_has_a_plain_name(cache: Cachetronaut) -> None:
    class Base:
        @cache
        def price(self) -> Any:
            return super().__doc__

    name = "test_a_method_that_calls_its_base_has_a_plain_name.<locals>.Base.price"
    assert Base.price.key_for(1) == f"{__name__}.{name}(self=1)"


def test_an_own_key_builder(anywhere: Cachetronaut) -> None:
    seen: list[Any] = []

    def build(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        seen.append((function, args, kwargs))
        return f"own:{args[0]}"

    function, calls = counted(anywhere, key_builder=build, tags=["t"])
    assert function(1, object()) == function(1, b=3) == "result 1"
    assert function(2) == "result 2"
    assert sorted(anywhere.all_keys()) == ["own:1", "own:2"]
    assert function.key_for(9) == "own:9"
    assert seen[1] == (function.__wrapped__, (1,), {"b": 3})
    assert seen[2][1:] == ((2,), {})
    assert len(calls) == 2


def test_a_key_builder_must_return_text(anywhere: Cachetronaut) -> None:
    function, calls = counted(anywhere, key_builder=lambda *_: 7)
    with pytest.raises(InvalidKeyError, match=r"key_builder of .*function returned 7"):
        function(1)
    assert (calls, anywhere.all_keys()) == ([], [])


def test_an_error_in_a_key_builder_passes_through(anywhere: Cachetronaut) -> None:
    def build(*_: object) -> str:
        raise LookupError("mine")

    function, calls = counted(anywhere, key_builder=build)
    with pytest.raises(LookupError, match="mine"):
        function(1)
    assert calls == []


def test_bound_methods_of_two_objects_do_not_share_entries(anywhere: Cachetronaut) -> None:
    @dataclasses.dataclass
    class Shop:
        name: str

        def price(self, item: str) -> str:
            return f"{self.name} {item}"

    a, b = anywhere(Shop("a").price), anywhere(Shop("b").price)
    assert (a("x"), b("x")) == ("a x", "b x")


def test_keys_are_the_same_in_every_process(
    run_python: Callable[..., CompletedProcess[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    code = (
        "from cachetronomy import Cachetronaut\n"
        "cache = Cachetronaut(':memory:')\n"
        "@cache\n"
        "def function(a, *b, c=None): pass\n"
        "def keys():\n"
        "    print(function.key_for({'b', 'a', 'c'}, {'x': 1}, frozenset('xyz'), c='k' * 900))\n"
        "    print(function.key_for([{'b', frozenset('xyz')}], {'y': {'p', 'q'}}.keys(), len))\n"
        "keys(); keys()\n"
    )
    printed = set()
    for seed in ("0", "1", "2", "random"):
        monkeypatch.setenv("PYTHONHASHSEED", seed)
        printed |= {*run_python(code).stdout.splitlines()}
    assert len(printed) == 2


def test_an_argument_of_a_script_is_the_same_in_its_workers(
    tmp_path: Path, run_python: Callable[..., CompletedProcess[str]]
) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import dataclasses, multiprocessing, sys\n"
        "from cachetronomy.core.utils.key_builder import default_key_builder\n"
        "@dataclasses.dataclass\n"
        "class Point:\n"
        "    x: int\n"
        "def function(point, cls): pass\n"
        "def show(_):\n"
        "    return default_key_builder(function, (Point(1), Point), {})\n"
        "if __name__ == '__main__':\n"
        "    with multiprocessing.get_context('spawn').Pool(1) as pool:\n"
        "        print(show(0), pool.map(show, [0])[0], sep='\\n')\n"
    )
    code = "import subprocess, sys\nsubprocess.run([sys.executable, sys.argv[1]], check=True)"
    mine, workers = run_python(code, script).stdout.splitlines()
    assert mine == workers
    assert str(script) in mine


def test_a_closure_over_another_client_is_apart_by_its_file(
    open_cache: Callable[..., Cachetronaut], tmp_path: Path
) -> None:
    cache = open_cache()

    def reader(source: Cachetronaut) -> Any:
        @cache
        def read(key: str) -> object:
            return source.get(key)

        return read

    a, b, private = (
        open_cache(tmp_path / "a.db"),
        open_cache(tmp_path / "b.db"),
        open_cache(":memory:"),
    )
    for number, source in enumerate((a, b, private, cache)):
        source.set("k", number)
    readers = [reader(source) for source in (a, b, private, open_cache(":memory:"), cache)]
    assert [read("k") for read in readers] == [0, 1, 2, None, 3]
    assert reader(a).key_for("k") == readers[0].key_for("k")
    assert reader(cache).key_for("k") == readers[4].key_for("k")
    assert str(cache.db_path) not in readers[4].key_for("k")  # The file may be moved.


class Session:
    """Has a repr that is only an address."""


@dataclasses.dataclass
class Account:
    user: str
    token: str = dataclasses.field(repr=False)
    session: Session = dataclasses.field(compare=False, default_factory=Session)


def test_what_a_repr_hides_tells_calls_apart_without_being_shown(cache: Cachetronaut) -> None:
    pydantic = pytest.importorskip("pydantic")
    attrs = pytest.importorskip("attrs")

    class Model(pydantic.BaseModel):  # type: ignore[name-defined,misc]
        token: str = pydantic.Field(repr=False)
        secret: pydantic.SecretStr = pydantic.SecretStr("none")

    @attrs.define
    class Attrs:
        token: str = attrs.field(repr=False)

    cached, _ = counted(cache)
    pairs = [
        (Account("ada", "hunter2"), Account("ada", "hunter3")),
        (Model(token="hunter2"), Model(token="hunter3")),
        (Model(token="t", secret="hunter2"), Model(token="t", secret="hunter3")),
        (Attrs("hunter2"), Attrs("hunter3")),
        (pydantic.SecretStr("hunter2"), pydantic.SecretStr("hunter3")),
        (pydantic.SecretBytes(b"hunter2"), pydantic.SecretBytes(b"hunter3")),
    ]
    for one, other in pairs:
        keys = {cached.key_for(one), cached.key_for(other)}
        assert len(keys) == 2
        assert all("hunter" not in key for key in keys)
        assert cached.key_for(copy.deepcopy(one)) in keys


def test_fields_that_do_not_count_for_equality_do_not_count(cache: Cachetronaut) -> None:
    cached, _ = counted(cache)
    one, other = Account("ada", "t"), Account("ada", "t", Session())
    assert one == other
    assert cached.key_for(one) == cached.key_for(other)


def test_a_refusal_names_the_field(cache: Cachetronaut) -> None:
    @dataclasses.dataclass
    class Outer:
        inner: Any

    cached, _ = counted(cache)
    with pytest.raises(TypeError, match=r'"a\.inner\.inner" is of type .*Session.*leave "a" out'):
        cached.key_for(Outer(Outer(Session())))


def test_arguments_that_do_not_fit_are_said_as_by_python(cache: Cachetronaut) -> None:
    cached, _ = counted(cache)
    with pytest.raises(TypeError, match="missing a required argument: 'a'"):
        cached.key_for()


def test_classes_that_a_function_makes_are_apart(cache: Cachetronaut) -> None:
    def make(number: int) -> Any:
        class Plugin:
            limit = number

            def __repr__(self) -> str:
                return "Plugin()"

            @classmethod
            @cache
            def of_class(cls) -> int:
                return cls.limit

            @cache
            def method(self) -> int:
                return self.limit

        return Plugin

    one, other = make(1), make(2)
    assert [plugin.of_class() for plugin in (one, other, one)] == [1, 2, 1]
    assert [plugin().method() for plugin in (one, other, one)] == [1, 2, 1]


def test_a_copied_method_is_that_of_the_copied_object(cache: Cachetronaut) -> None:
    class Named:
        def __init__(self, name: str) -> None:
            self.name, self.method = name, self.get

        def __cache_key__(self) -> str:
            return self.name

        @cache
        def get(self, x: int = 1) -> str:
            return f"{self.name} {x}"

    named = Named("a")
    deep = copy.deepcopy(named)
    deep.name = "b"
    assert (deep.method(5), named.method(5), copy.copy(named.method)(5)) == ("b 5", "a 5", "a 5")
    assert deep.method.__self__ is deep
