"""Dataclasses and pydantic models come back for whoever names their class, and are plain maps."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime as dt
import decimal
import enum
import gc
import json
import math
import typing
import uuid
import weakref
from collections.abc import Awaitable, Sequence
from typing import Annotated, Any, Generic, Literal, NewType, Optional, TypedDict, TypeVar

import msgpack
import orjson
import pytest
from cachetronomy import _core, _rebuild
from cachetronomy.exceptions import InvalidSettingError, SerializationError
from cachetronomy.serialization import deserialize
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    RootModel,
    ValidationError,
    computed_field,
    field_serializer,
    model_validator,
)
from pydantic.dataclasses import dataclass as pydantic_dataclass
from typing_extensions import TypeAliasType

T = TypeVar("T")
WHEN = dt.datetime(2026, 1, 2, 3, 4, 5, 6)
ID = uuid.UUID(int=7)


@dataclasses.dataclass
class Point:
    x: float
    y: float = 0.0


@dataclasses.dataclass(frozen=True)
class Frozen:
    name: str
    when: dt.datetime | None = None


@dataclasses.dataclass(slots=True)
class Slots:
    a: int
    b: list[Point] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Strict:
    z: int
    a: int = 1


@dataclasses.dataclass
class Computed:
    width: int
    area: int = dataclasses.field(init=False)
    log: list[str] = dataclasses.field(default_factory=list)

    def __post_init__(self):
        self.area = self.width**2
        self.log.append("made")


@dataclasses.dataclass
class Seeded:
    value: int
    seed: dataclasses.InitVar[int] = 5
    kind: typing.ClassVar[str] = "seeded"

    def __post_init__(self, seed):
        self.value += seed


@dataclasses.dataclass
class NeedsSeed:
    value: int
    seed: dataclasses.InitVar[int]


@dataclasses.dataclass
class Base:
    origin: Point


@dataclasses.dataclass
class Derived(Base):
    extent: Point | None = None


@dataclasses.dataclass
class Tree:
    value: int
    left: Tree | None = None
    right: Optional[Tree] = None  # noqa: UP045 - written both ways
    more: list[Tree] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Box(Generic[T]):
    item: T
    more: dict[str, list[T]] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class PointBox(Box[Point]):
    label: str = ""


@dataclasses.dataclass
class Circle:
    kind: Literal["circle"]
    size: int


@dataclasses.dataclass
class Square:
    kind: Literal["square"]
    size: int


@dataclasses.dataclass
class Cube:
    size: int


@dataclasses.dataclass
class Ball:
    size: int


@dataclasses.dataclass
class Drawing:
    shape: Circle | Square
    body: Cube | Ball | None = None


@dataclasses.dataclass
class Anything:
    item: Any


class Address(BaseModel):
    street: str
    zip_code: int | str


class Person(BaseModel):
    name: str
    addresses: list[Address] = []
    best: Address | None = None


class Event(BaseModel):
    when: dt.datetime
    ident: uuid.UUID
    price: decimal.Decimal
    days: tuple[dt.date, ...] = ()
    tags: set[str] = set()


class Aliased(BaseModel):
    first: int = Field(1, alias="First")
    second: int = Field(2, validation_alias="2nd", serialization_alias="deux")


class AliasedOut(BaseModel):
    model_config = ConfigDict(serialize_by_alias=True)
    first: int = Field(1, alias="First")


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")
    a: int


class Closed(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    a: int

    @computed_field
    @property
    def twice(self) -> int:
        return 2 * self.a


class Rectangle(BaseModel):
    width: int

    @computed_field
    @property
    def area(self) -> int:
        return self.width**2


class Private(BaseModel):
    a: int
    _hidden: list[int] = PrivateAttr(default_factory=list)


class Stamped(BaseModel):
    when: dt.datetime

    @field_serializer("when")
    def as_number(self, when):
        return when.timestamp()


class Masked(BaseModel):
    password: str

    @field_serializer("password")
    def mask(self, _password):
        return "***"


class Popping(BaseModel):
    a: int

    @model_validator(mode="before")
    @classmethod
    def pop(cls, data):
        return {"a": data.pop("a")}


class Hiding(BaseModel):
    a: int
    hidden: int = Field(3, exclude=True)


class Swapped(BaseModel):
    a: int = Field(alias="b")
    b: int = Field(alias="a")


class Longer(Address):
    country: str = "x"


class ByDay(BaseModel):
    days: dict[int, Address]
    when: dt.datetime
    raw: bytes = b"raw"


class Numbers(RootModel[list[int]]):
    pass


class Page(BaseModel, Generic[T]):
    items: list[T]


class Cat(BaseModel):
    kind: Literal["cat"] = "cat"
    age: int


class Dog(BaseModel):
    kind: Literal["dog"] = "dog"
    age: int


class Owner(BaseModel):
    pet: Cat | Dog = Field(discriminator="kind")


class Colour(enum.Enum):
    RED = "red"


class Painted(BaseModel):
    colour: Colour


class Mixed(BaseModel):
    point: Point
    frozen: Frozen


@dataclasses.dataclass
class Wrapping:
    person: Person
    events: dict[str, Event]


@pydantic_dataclass
class Checked:
    a: int
    p: Point


def made_from_json():
    return Event.model_validate_json(
        '{"when":"2026-01-01T00:00:00Z","ident":"00000000-0000-0000-0000-000000000007","price":"1"}'
    )


EVENT = Event(
    when=WHEN, ident=ID, price="1.10", days=[dt.date(2026, 1, 1)], tags={"a", "b", "c", "d", "e"}
)
PERSON = Person(name="Ada", addresses=[Address(street="x", zip_code=1)])
TREE = Tree(1, Tree(2, right=Tree(3)), None, [Tree(4, more=[Tree(5)])])

# A value, the type that a reader names, and the label.
VALUES = [
    (Point(1, 2.5), Point, "json"),
    (Point(math.nan), Point, "msgpack"),
    (Frozen("x"), Frozen, "json"),
    (Frozen("x", WHEN), Frozen, "cachetronomy"),
    (Slots(1, [Point(1), Point(2)]), Slots, "json"),
    (Strict(z=2), Strict, "json"),
    (Computed(3), Computed, "json"),
    (Seeded(1), Seeded, "json"),
    (Derived(Point(1), Point(2)), Derived, "json"),
    (TREE, Tree, "json"),
    (Box(1), Box, "json"),
    (Box(Point(1), {"k": [Point(2)]}), Box[Point], "json"),
    (Box(Box(Point(1))), Box[Box[Point]], "json"),
    (PointBox(Point(1), {}, "x"), PointBox, "json"),
    (Drawing(Square("square", 1)), Drawing, "json"),
    (Anything([1, b"x", (2,)]), Anything, "cachetronomy"),
    ([Point(1), Point(2)], list[Point], "json"),
    ({"a": Point(1), "b": None}, dict[str, Optional[Point]], "json"),  # noqa: UP045
    ((Point(1), "x", 3), tuple[Point, str, int], "cachetronomy"),
    ((Point(1), Point(2)), tuple[Point, ...], "cachetronomy"),
    ([[Point(1)]], Sequence[Sequence[Point]], "json"),
    (PERSON, Person, "json"),
    (EVENT, Event, "json"),
    ((EVENT,), tuple[Event], "cachetronomy"),
    (made_from_json(), Event, "json"),
    (Event(when=WHEN.replace(tzinfo=dt.timezone.utc), ident=ID, price=1), Event, "cachetronomy"),
    (Aliased.model_validate({"First": 5, "2nd": 6}), Aliased, "json"),
    (AliasedOut.model_validate({"First": 5}), AliasedOut, "json"),
    (Open(a=1, b=[2], c={"d": 3}), Open, "json"),
    (Closed(a=1), Closed, "json"),
    (Rectangle(width=3), Rectangle, "json"),
    (Private(a=1), Private, "json"),
    (Stamped(when=dt.datetime(2026, 1, 1, tzinfo=dt.timezone.utc)), Stamped, None),
    (Popping(a=1), Popping, "json"),
    (Hiding(a=1), Hiding, "json"),
    (ByDay(days={1: Address(street="x", zip_code="1")}, when=WHEN), ByDay, "json"),
    (ByDay(days={}, when=WHEN, raw=b"\xff"), ByDay, "cachetronomy"),
    (Numbers([1, 2]), Numbers, "json"),
    (Page[Address](items=PERSON.addresses), Page[Address], "json"),
    (Owner(pet=Dog(age=3)), Owner, "json"),
    (Painted(colour=Colour.RED), Painted, "json"),
    ((Painted(colour=Colour.RED),), tuple[Painted], "cachetronomy"),
    (Mixed(point=Point(1.0), frozen=Frozen("x")), Mixed, None),
    (Wrapping(PERSON, {"e": EVENT}), Wrapping, "json"),
    (Checked(1, Point(2)), Checked, "json"),
    ([PERSON, None, Cat(age=1)], list[Person | Cat | None], "json"),
]


def short_id(value):
    return type(value).__name__


def parts(value):
    """Everything that is in a value, with its types, as something to compare."""
    if dataclasses.is_dataclass(value):
        found = [(f.name, parts(getattr(value, f.name))) for f in dataclasses.fields(value)]
        return type(value), found
    if isinstance(value, BaseModel):
        state = (value.__dict__, value.__pydantic_extra__ or {}, value.__pydantic_private__ or {})
        return type(value), [parts(part) for part in state]
    if isinstance(value, dict):
        return dict, [(key, parts(item)) for key, item in value.items()]
    if isinstance(value, (list, tuple)):
        return type(value), [parts(item) for item in value]
    return type(value), value if value == value else "nan"


@pytest.mark.parametrize(("value", "hint", "label"), VALUES, ids=short_id)
def test_it_comes_back_for_who_names_the_class(value, hint, label, tier, open_cache):
    cache = open_cache()
    cache.set("key", value)
    if label is not None:
        assert _core.serialize(value)[1] == label
    got = tier(cache).get("key", model=hint)
    assert parts(got) == parts(value)


@pytest.mark.parametrize(("value", "hint", "label"), VALUES, ids=short_id)
def test_it_comes_back_from_a_function_with_an_annotation(value, hint, label, open_cache):
    calls = []

    def compute():
        calls.append(1)
        return value

    compute.__annotations__["return"] = hint
    first = open_cache()
    assert first(compute)() is value
    assert first(compute)() is value
    first.evict_all()
    assert parts(first(compute)()) == parts(value)
    assert parts(open_cache()(compute)()) == parts(value)
    assert calls == [1]


@pytest.mark.parametrize(("value", "hint", "label"), VALUES, ids=short_id)
def test_other_libraries_read_the_map(value, hint, label):
    data, fmt = _core.serialize(value)
    plain = _core.deserialize(data, fmt)
    assert type(plain) in {dict, list, tuple}
    if fmt == "json":
        assert json.loads(data) == orjson.loads(data) == plain
        assert json.loads(_core.serialize(value, prefer="orjson")[0]) == plain
    if fmt != "cachetronomy":
        packed, label = _core.serialize(value, prefer="msgpack")
        assert label == "msgpack"
        assert parts(msgpack.unpackb(packed)) == parts(plain)


@pytest.mark.parametrize(("value", "hint", "label"), VALUES, ids=short_id)
def test_deserialize_takes_the_class_too(value, hint, label):
    for prefer in (None, "msgpack", "cachetronomy"):
        got = deserialize(*_core.serialize(value, prefer=prefer), model_type=hint)
        assert parts(got) == parts(value)


def test_the_map_has_the_names_of_the_fields():
    assert _core.serialize(Derived(Point(1, 2))) == (
        b'{"origin":{"x":1,"y":2},"extent":null}',
        "json",
    )
    assert json.loads(_core.serialize([PERSON])[0]) == [PERSON.model_dump()]
    assert json.loads(_core.serialize(EVENT)[0]) == EVENT.model_dump(mode="json")
    assert json.loads(_core.serialize(Rectangle(width=3))[0]) == {"width": 3, "area": 9}
    assert json.loads(_core.serialize(Closed(a=3))[0]) == {"a": 3}
    assert json.loads(_core.serialize(Aliased(First=3))[0]) == {"first": 3, "second": 2}
    assert _core.serialize(Numbers([1]))[0] == b"[1]"


def test_what_only_our_format_carries_is_kept_in_it_on_request():
    data, fmt = _core.serialize(EVENT, prefer="cachetronomy")
    assert fmt == "cachetronomy"
    assert _core.deserialize(data, fmt) == EVENT.model_dump()


def test_a_field_of_another_type_than_its_annotation_is_kept_as_it_is():
    point = Point(1, "not a number")
    got = deserialize(*_core.serialize(point), model_type=Point)
    assert (type(got.x), got.y) == (int, "not a number")


def test_code_that_runs_when_an_instance_is_made_does_not_change_it(cache):
    computed = Computed(3)
    computed.area = 10
    computed.log = []
    cache.set("computed", computed)
    cache.evict_all()
    got = cache.get("computed", model=Computed)
    assert (got.width, got.area, got.log) == (3, 10, [])


# What is refused.


class Unmakeable:
    pass


@dataclasses.dataclass
class Picky:
    a: int

    def __post_init__(self):
        if self.a < 0:
            raise RuntimeError("negative")


@dataclasses.dataclass(init=False)
class OwnInit:
    a: int

    def __init__(self, b):
        self.a = b


@dataclasses.dataclass
class ListOfMore(list):
    a: int = 1


@dataclasses.dataclass
class Mixin:
    a: int


class Members(Mixin, enum.Enum):
    ONE = 1


def negative():
    value = Picky(1)
    value.a = -1
    return value


def without_a_field():
    value = Point(1)
    del value.x
    return value


def with_private_state():
    value = Private(a=1)
    value._hidden.append(2)
    return value


REFUSED = [
    (NeedsSeed(1, 2), r"^value cannot be stored: .*needs 'seed'"),
    (OwnInit(1), r"^value cannot be stored: .*needs 'b'"),
    (negative(), "^value cannot be stored: .*negative"),
    (without_a_field(), r"^value\.x cannot be stored: "),
    (Anything(Point(1)), r"Anything, and `value\.item` would not come back"),
    (Anything([{"a": PERSON}]), r"`value\.item\[0\]\['a'\]` would not come back"),
    (Base(Derived(Point(1))), r"cannot be stored: .*is no Point"),
    (Drawing(Circle("circle", 1), Ball(1)), r"cannot be stored: .*several types"),
    (Page(items=[Cat(age=1)]), r"`value\.items\[0\]` would not come back"),
    (Open(a=1, b=Cat(age=1)), r"`value\.__pydantic_extra__\['b'\]` would not"),
    (with_private_state(), r"`value\.__pydantic_private__\['_hidden'\]` would not come back"),
    (Hiding(a=1, hidden=4), r"`value\.hidden` would not come back"),
    (Swapped(a=1, b=2), r"`value\.a` would not come back"),
    (Person(name="x", best=Longer(street="x", zip_code=1)), r"`value\.best` would not come back"),
    (Masked(password="secret"), r"`value\.password` would not come back"),
    (Anything(object()), r"^value\.item is of type object"),
    (Slots(1, [Point(object())]), r"^value\.b\[0\]\.x is of type object"),
    (Open(a=1, b=[object()]), r"^value\['b'\]\[0\] is of type object"),
    (Address.model_construct(street="x"), r"(?s)^value cannot be stored: .*Field required"),
    (Point, "^value is of type type"),
    (Person, "^value is of type .*ModelMetaclass"),
    (ListOfMore(2), "convert it to a plain list"),
    (Members.ONE, "^value is of type .*Members"),
]


@pytest.mark.parametrize(("value", "message"), REFUSED, ids=short_id)
@pytest.mark.parametrize("prefer", [None, "cachetronomy"])
def test_what_would_not_come_back_is_refused(value, message, prefer, cache):
    with pytest.raises(SerializationError, match=message):
        _core.serialize(value, prefer=prefer)
    with pytest.raises(SerializationError):
        cache.set("key", value, prefer=prefer)
    assert cache.store_keys() == []
    with pytest.raises(SerializationError, match=message.replace("^value", r"^value\['k'\]\[0\]")):
        _core.serialize({"k": [value]}, prefer=prefer)


@pytest.mark.parametrize("value", [Frozen("x"), Closed(a=1)], ids=short_id)
def test_a_map_is_no_key_and_no_member_of_a_set(value):
    for inside in ({value: 1}, {value}, frozenset({(1, value)}), {(value,): 1}):
        for prefer in (None, "msgpack", "cachetronomy"):
            with pytest.raises(SerializationError, match=r"member\)|key\).*no key"):
                _core.serialize(inside, prefer=prefer)


def test_an_exception_while_dumping_is_the_cause_and_has_a_place():
    class Bad(BaseModel):
        a: int

        @field_serializer("a")
        def fail(self, _a):
            raise LookupError(self.a)

    @dataclasses.dataclass
    class Lazy:
        a: int

        def __getattribute__(self, name):
            if name == "a":
                raise LookupError(7)
            return object.__getattribute__(self, name)

    for value, place in ((Bad(a=7), r"value\['x'\]\[1\]"), (Lazy(7), r"value\['x'\]\[1\]\.a")):
        with pytest.raises(SerializationError, match=place + " cannot be stored: .*7") as it:
            _core.serialize({"x": [0, value]})
        assert "7" in str(it.value.__cause__)


def test_memory_errors_and_interrupts_pass():
    for error in (MemoryError, KeyboardInterrupt):

        class Bad(BaseModel):
            def model_dump(self, **_options):
                raise error  # noqa: B023 - used at once

        with pytest.raises(error):
            _core.serialize([Bad()])


def test_a_class_that_refers_to_local_classes_of_others_is_refused_when_it_holds_them():
    @dataclasses.dataclass
    class Inner:
        a: int

    @dataclasses.dataclass
    class Outer:
        inner: Inner | None
        itself: Outer | None = None

    assert deserialize(*_core.serialize(Outer(None, Outer(None))), model_type=Outer) == Outer(
        None, Outer(None)
    )
    with pytest.raises(SerializationError, match=r"`value\.inner` would not come back"):
        _core.serialize(Outer(Inner(1)))


def test_deep_nesting_of_instances_has_the_same_limit_as_of_maps():
    value = Tree(0)
    for number in range(1, 253):
        value = Tree(number, left=value)
    try:
        data, fmt = _core.serialize(value)
    except SerializationError as error:
        assert "recursion" in str(error)  # noqa: PT017 - Python's own limit came first
    else:
        assert deserialize(data, fmt, model_type=Tree) == value
    with pytest.raises(SerializationError):
        _core.serialize(Tree(-1, left=value))


def test_an_instance_that_contains_itself_is_refused():
    tree = Tree(1)
    tree.left = tree
    with pytest.raises(SerializationError, match="contains itself"):
        _core.serialize(tree)
    person = Open(a=1)
    person.b = person
    with pytest.raises(SerializationError, match="contains itself"):
        _core.serialize(person)


# Reading with `model=`.


def test_an_instance_of_the_class_is_returned_as_it_is(cache):
    point = Point(1)
    cache.set("point", point)
    assert cache.get("point", model=Point) is point
    assert cache.get("point") is point


def test_an_instance_of_another_class_is_read_as_its_map_is(tier, open_cache):
    class Other(BaseModel):
        name: str

    cache = open_cache()
    cache.set("person", PERSON)
    cache.set("people", [PERSON])
    assert tier(cache).get("person", model=Other) == Other(name="Ada")
    assert tier(cache).get("people", model=list[Other]) == [Other(name="Ada")]
    assert tier(cache).get("person", model=dict[str, Any])["name"] == "Ada"


def test_a_map_that_does_not_fit_is_a_validation_error(tier, open_cache):
    cache = open_cache()
    cache.set("key", {"name": 1})
    for model in (Person, Point, list[Point], int):
        with pytest.raises(ValidationError):
            tier(cache).get("key", model=model)


def test_maps_of_others_are_read_with_aliases_and_coercion():
    assert _rebuild.validate({"First": "7"}, Aliased).first == 7
    assert _rebuild.validate({"first": 7}, Aliased).first == 7
    assert _rebuild.validate({"x": "1"}, Point) == Point(1.0, 0.0)
    assert _rebuild.validate(["1"], list[int]) == [1]
    assert _rebuild.validate(["1"], Annotated[list[int], Field(min_length=1)]) == [1]
    assert _rebuild.validate({"x": 1}, Annotated[Point, [1]]) == Point(1)


# The return annotation.


def rebuilt(hint, value):
    def function():
        pass

    function.__annotations__["return"] = hint
    rebuild = _rebuild.rebuilder(function)
    return value if rebuild is None else rebuild(value)


UserPoint = NewType("UserPoint", Point)


class Typed(TypedDict, total=False):
    point: typing.Required[Point] if hasattr(typing, "Required") else Point
    other: list[Point]


def test_annotations_without_classes_of_fields_cost_nothing():
    for hint in (
        None,
        int,
        Any,
        "dict[str, list[int]]",
        list,
        tuple[int, ...],
        int | None,
        "Unknown",
        "Point +",
        T,
        Literal["a"],
        Colour,
        dict[str, Any],
        type[Point],
        typing.Callable[[Point], Point],
    ):
        assert rebuilt(hint, {"x": 1, "y": 2}) == {"x": 1, "y": 2}

        def function():
            pass

        function.__annotations__["return"] = hint
        assert _rebuild.rebuilder(function) is None
    assert _rebuild.rebuilder(lambda: 1) is None
    assert _rebuild.rebuilder(len) is None


MAP = {"x": 1, "y": 2.5}
POINT = Point(1, 2.5)


@pytest.mark.parametrize(
    ("hint", "plain", "value"),
    [
        (Point, MAP, POINT),
        (Point, None, None),
        (Point, "x", "x"),
        (Point, [MAP], [MAP]),
        (Point, POINT, POINT),
        ("Point", MAP, POINT),
        (Point | None, MAP, POINT),
        (Point | None, None, None),
        (Point | int, 3, 3),
        (Optional["Point"], MAP, POINT),
        (Point | dict[str, int], MAP, POINT),
        (Point | dict[str, int], {"a": 1}, {"a": 1}),
        (Point | Tree, {"value": 1, "left": None, "right": None, "more": []}, Tree(1)),
        (Circle | Square, {"kind": "square", "size": 1}, Square("square", 1)),
        (Cat | Dog, {"kind": "dog", "age": 1}, Dog(age=1)),
        (Cat | Point, MAP, POINT),
        (list[Point] | dict[str, Point], [MAP], [POINT]),
        (list[Point] | dict[str, Point], {"a": MAP}, {"a": POINT}),
        (list[Point] | list[Cube], [], []),
        (list[Point] | list[Cube], [{"size": 1}], [Cube(1)]),
        (list[Point], [MAP, POINT, None], [POINT, POINT, None]),
        (typing.List[Point], [MAP], [POINT]),  # noqa: UP006 - written both ways
        (tuple[Point, ...], (MAP,), (POINT,)),
        (tuple[int, Point], (1, MAP), (1, POINT)),
        (tuple[()], (), ()),
        (set[Point], {1}, {1}),
        (frozenset[Numbers], frozenset(), frozenset()),
        (dict[str, list[Point]], {"a": [MAP]}, {"a": [POINT]}),
        (typing.Mapping[str, Point], {"a": MAP}, {"a": POINT}),
        (Annotated[Point, "note"], MAP, POINT),
        (list[Annotated[Point, "note"]], [MAP], [POINT]),
        (UserPoint, MAP, POINT),
        (TypeAliasType("Points", list[Point]), [MAP], [POINT]),
        (TypeAliasType("Listed", list[T], type_params=(T,))[Point], [MAP], [POINT]),
        (Typed, {"point": MAP, "other": [MAP], "x": 1}, {"point": POINT, "other": [POINT], "x": 1}),
        (Awaitable[Point], MAP, POINT),
        (typing.Coroutine[Any, Any, Point], MAP, POINT),
        (Box[Point], {"item": MAP, "more": {"a": [MAP]}}, Box(POINT, {"a": [POINT]})),
        (Numbers | None, [1], Numbers([1])),
        (Numbers | None, None, None),
    ],
    ids=str,
)
def test_the_annotation_says_what_maps_stand_for(hint, plain, value):
    got = rebuilt(hint, plain)
    assert parts(got) == parts(value)


@pytest.mark.parametrize(
    ("hint", "plain"),
    [
        (Point, {"x": 1}),
        (Point, {"x": 1, "y": 1, "z": 1}),
        (Point, {}),
        (Picky, {"a": -1}),
        (list[Point], [MAP, {}]),
        (Person, {"nom": "Ada"}),
        (Aliased, {"first": 1, "second": 2, "third": 3}),
        (Person, {"name": "Ada", "best": {"street": "x", "zip_code": 1, "old": 1}}),
        (Cube | Ball, {"size": 1}),
        (Circle | Square, {"kind": "triangle", "size": 1}),
        (Point | Person, {"a": 1}),
        (tuple[Point, int], (MAP,)),
    ],
    ids=str,
)
def test_a_map_that_does_not_fit_the_class_any_more_is_a_value_error(hint, plain):
    with pytest.raises(ValueError, match=r"\w"):
        rebuilt(hint, plain)


def test_a_row_of_a_changed_class_is_computed_anew(open_cache):
    def version_of(fields):
        made = dataclasses.make_dataclass("Changing", fields)
        calls = []

        def compute():
            calls.append(1)
            return made(1)

        compute.__annotations__["return"] = made
        return compute, calls, made

    for fields, expected in ((["a"], 1), (["a"], 0), (["b"], 1), (["b"], 0)):
        compute, calls, made = version_of(fields)
        cache = open_cache()
        # Another closure has another key; a program that was changed has the same.
        assert cache(compute, key_builder=lambda *_: "key")() == made(1)
        assert len(calls) == expected
        cache.close()


def test_coroutine_functions_and_methods_keep_their_promise(open_cache):
    class Service:
        @staticmethod
        def rows() -> list[Point]:
            return [POINT]

    async def row() -> Point | None:
        return POINT

    for _ in range(2):
        cache = open_cache()
        got = asyncio.run(cache(row)())
        assert parts(got) == parts(POINT)
        assert parts(cache(Service.rows)()) == parts([POINT])
        cache.close()


def test_classes_local_to_a_function_are_found_in_its_closure(open_cache):
    @dataclasses.dataclass
    class Local:
        a: int

    calls = []

    def compute() -> list[Local]:
        calls.append(1)
        return [Local(1)]

    for _ in range(2):
        cache = open_cache()
        assert cache(compute)() == [Local(1)]
        cache.close()
    assert calls == [1]


# The class itself.


def test_a_class_may_die_and_another_may_take_its_place():
    for number in range(400):
        names = [f"f{number}", "x"]
        made = dataclasses.make_dataclass(f"Made{number}", names)
        value = made(number, 0)
        data, fmt = _core.serialize(value)
        assert json.loads(data) == {names[0]: number, "x": 0}
        assert fmt == "json"
        del made, value
        if number % 50 == 0:
            gc.collect()


def test_writing_does_not_keep_a_flat_class_alive_for_ever():
    made = [dataclasses.make_dataclass("Made", ["a"]) for _ in range(400)]
    references = [weakref.ref(one) for one in made]
    for one in made:
        _core.serialize(one(1))
    del made, one
    gc.collect()
    assert sum(reference() is not None for reference in references) <= 256


def test_the_version_of_the_class_is_the_default(open_cache):
    class Versioned(BaseModel):
        __cache_version__ = 3
        a: int

    @dataclasses.dataclass
    class VersionedData:
        a: int
        __cache_version__ = 2

    class Wrong(BaseModel):
        __cache_version__ = 0

    cache = open_cache()
    for value, version in ((Versioned(a=1), 3), (VersionedData(1), 2), (Point(1), 1), ([1], 1)):
        for reader in (cache, open_cache()):
            cache.set("key", value)
            assert reader.get("key", version=version) is not None
            assert reader.get("key", version=version + 1) is None
            cache.set("key", value, version=7)
            assert reader.get("key", version=version) is None
            assert reader.get("key", version=7) is not None
    with pytest.raises(InvalidSettingError, match=r"Wrong: 0 is not a version"):
        cache.set("key", Wrong())


def test_dataclasses_are_stored_without_pydantic(run_python, db_path):
    code = """
import dataclasses, sys
from cachetronomy import Cachetronaut

@dataclasses.dataclass
class Point:
    x: int
    other: "Point | None" = None

with Cachetronaut(sys.argv[1]) as cache:
    cache.set("p", Point(1, Point(2)))
    cache.evict_all()
    assert cache.get("p", model=Point) == Point(1, Point(2))
    assert "pydantic" not in sys.modules
"""
    run_python(code, db_path)


class Shape(BaseModel):
    name: str


class Round(Shape):
    radius: int


def test_a_result_that_its_annotation_would_not_bring_back_is_refused_with_the_result(open_cache):
    cache = open_cache()

    @cache
    def one() -> Shape:
        return Round(name="o", radius=1)

    @cache
    def many() -> list[Shape]:
        return [Shape(name="a"), Round(name="o", radius=1)]

    @cache
    def plain() -> Shape:
        return {"name": "a"}

    for function in (one, many):
        for _ in range(2):
            with pytest.raises(SerializationError, match="would not come back") as caught:
                function()
            assert caught.value.value is not None
    assert plain() == {"name": "a"}
    cache.evict_all()
    assert plain() == Shape(name="a")


def test_a_function_knows_the_version_of_the_class_that_it_promises(open_cache):
    @dataclasses.dataclass
    class Versioned:
        a: int
        __cache_version__ = 3

    calls = []

    def function() -> Versioned:
        calls.append(1)
        return Versioned(1)

    for _ in range(2):  # The second client has to know it before it has a result.
        cache = open_cache()
        assert cache(function)() == Versioned(1)
        assert cache.key_metadata(cache(function).key_for()).version == 3
    assert calls == [1]
    Versioned.__cache_version__ = 4
    assert open_cache()(function)() == Versioned(1)
    assert calls == [1, 1]
