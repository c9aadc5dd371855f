"""What annotations say about maps: which of them stand for dataclasses and pydantic models."""

from __future__ import annotations

import collections.abc
import contextlib
import copy
import dataclasses
import functools
import sys
import types
import typing
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

Rebuild: TypeAlias = "_Fields | _Model | _Items | _Places | _Values | _Keys | Union | _Alias"
# What type variables stand for; `None` for what holds no class.
Environment: TypeAlias = "dict[Any, Rebuild | None]"

_MAP: Final = frozenset({dict})
_COLLECTIONS: Final = frozenset({list, tuple, set, frozenset})
_PLAIN: Final = frozenset({*_MAP, *_COLLECTIONS, str, int, float, bool, bytes, type(None)})
_COLLECTION_HINTS: Final = frozenset(
    {
        *_COLLECTIONS,
        collections.abc.Collection,
        collections.abc.Iterable,
        collections.abc.MutableSequence,
        collections.abc.Sequence,
    }
)
_MAPPING_HINTS: Final = frozenset(
    {dict, collections.abc.Mapping, collections.abc.MutableMapping},
)
# Not all of them are there on every Python.
_WRAPPERS: Final = frozenset(
    {"Annotated", "ClassVar", "Final", "NotRequired", "ReadOnly", "Required"}
)
_NO_TYPES: Final[Environment] = {}
# The name of `typing.Self`, which is not there on every Python, and its place in an environment.
_SELF: Final = "Self"


@functools.cache
def by_name() -> dict[str, Any]:
    """Return the argument with which pydantic takes names too where there are aliases.

    Its dumps have names.
    """
    import pydantic  # noqa: PLC0415 - loaded when it is needed

    major, minor = pydantic.VERSION.split(".")[:2]
    return {"by_name": True} if (int(major), int(minor)) >= (2, 11) else {}


def is_model(hint: object) -> bool:
    """Tell pydantic models, without pydantic."""
    return (
        isinstance(hint, type)
        and hasattr(hint, "__pydantic_serializer__")
        and hasattr(hint, "model_fields")
    )


def load(cls: Any, plain: object) -> Any:  # noqa: ANN401 - a pydantic model, which is not imported
    try:
        # Below the methods that a class may override with other parameters.
        return cls.__pydantic_validator__.validate_python(plain, **by_name())
    except (ValueError, MemoryError, RecursionError):
        raise
    except Exception as error:
        message = f"{cls.__qualname__} cannot be made from its dump: {error!r}"
        raise ValueError(message) from error


# Annotations. Every class below is called with a plain value, passes on what is not of its
# `kinds`, and raises ValueError for what is but does not fit.


class _Fields:
    """A dataclass, from the map of its fields."""

    __slots__ = ("cls", "environment", "has_post_init", "init", "literals", "names", "steps")
    kinds = _MAP

    def __init__(self, cls: type, environment: Environment) -> None:
        self.cls = cls
        # Kept alive: it is known by the address of what is in it.
        self.environment = environment
        fields = dataclasses.fields(cls)
        self.names = {field.name for field in fields}
        self.init = [field.name for field in fields if field.init]
        self.has_post_init = hasattr(cls, "__post_init__")
        # Filled when the classes of the fields are known, which may be this one again.
        self.steps: list[tuple[str, Rebuild]] = []
        self.literals: list[tuple[str, tuple[object, ...]]] = []

    def __call__(self, value: Any) -> Any:  # noqa: ANN401 - any value
        if type(value) is not dict:
            return value
        if value.keys() != self.names:
            message = (
                f"a map with the keys {sorted(map(str, value))} is no {self.cls.__qualname__}, "
                f"which has the fields {sorted(self.names)}"
            )
            raise ValueError(message)
        try:
            # Code that runs in there may change what it is given.
            given = self._rebuilt(copy.deepcopy(value)) if self.has_post_init else None
            state = self._rebuilt(value)
            given = state if given is None else given
            made = self.cls(**{name: given[name] for name in self.init})
            for name, item in state.items():
                object.__setattr__(made, name, item)
        except (ValueError, MemoryError, RecursionError):
            raise
        except Exception as error:
            message = f"{self.cls.__qualname__} cannot be made from its fields: {error!r}"
            raise ValueError(message) from error
        return made

    def _rebuilt(self, value: dict[str, Any]) -> dict[str, Any]:
        if not self.steps:
            return value
        state = value.copy()
        for name, step in self.steps:
            state[name] = step(state[name])
        return state

    def is_other(self, value: dict[Any, Any]) -> bool:
        """Tell by a field of `Literal` type that the map is of another class of a union."""
        return any(name in value and value[name] not in allowed for name, allowed in self.literals)


class _Model:
    """A pydantic model, from what it dumps."""

    __slots__ = ("cls", "kinds")

    def __init__(self, cls: Any) -> None:  # noqa: ANN401 - as in `load`
        self.cls = cls
        self.kinds = _PLAIN if getattr(cls, "__pydantic_root_model__", False) else _MAP

    def __call__(self, value: Any) -> Any:  # noqa: ANN401 - any value
        if isinstance(value, self.cls) or type(value) not in self.kinds:
            return value
        made = load(self.cls, value)
        # A key that the model ignores is a field that it had.
        if _lost(value, made.model_dump()) and _lost(value, made.model_dump(mode="json")):
            message = f"{self.cls.__qualname__} does not keep all of {sorted(map(str, value))}"
            raise ValueError(message)
        return made


def _lost(stored: object, dumped: object) -> bool:
    """Whether a key of the stored maps is missing in the dump of what was made of them."""
    if isinstance(stored, dict) and isinstance(dumped, dict):
        # JSON turns other keys into text.
        if not all(type(key) is str for key in dumped):
            return False
        return any(key not in dumped or _lost(stored[key], dumped[key]) for key in stored)
    if isinstance(stored, list) and isinstance(dumped, (list, tuple)):
        return any(_lost(a, b) for a, b in zip(stored, dumped, strict=False))
    return False


class _Items:
    """A list, tuple or set of things of one kind."""

    __slots__ = ("item", "kinds")

    def __init__(self, kinds: frozenset[type], item: Rebuild) -> None:
        self.kinds = kinds
        self.item = item

    def __call__(self, value: Any) -> Any:  # noqa: ANN401 - any value
        kind = type(value)
        return kind(map(self.item, value)) if kind in self.kinds else value


class _Places:
    """A tuple with a type for each place."""

    __slots__ = ("items",)
    kinds = frozenset({tuple})

    def __init__(self, items: list[Rebuild | None]) -> None:
        self.items = items

    def __call__(self, value: Any) -> Any:  # noqa: ANN401 - any value
        if type(value) is not tuple:
            return value
        if len(value) != len(self.items):
            message = f"a tuple of {len(value)} is none of {len(self.items)}"
            raise ValueError(message)
        return tuple(
            part if item is None else item(part)
            for item, part in zip(self.items, value, strict=True)
        )


class _Values:
    """A dict with values of one kind."""

    __slots__ = ("item",)
    kinds = _MAP

    def __init__(self, item: Rebuild) -> None:
        self.item = item

    def __call__(self, value: Any) -> Any:  # noqa: ANN401 - any value
        if type(value) is not dict:
            return value
        return {key: self.item(item) for key, item in value.items()}


class _Keys:
    """A `TypedDict`."""

    __slots__ = ("items",)
    kinds = _MAP

    def __init__(self, items: dict[str, Rebuild]) -> None:
        self.items = items

    def __call__(self, value: Any) -> Any:  # noqa: ANN401 - any value
        if type(value) is not dict:
            return value
        return {
            key: self.items[key](item) if key in self.items else item for key, item in value.items()
        }


class _Alias:
    """A named type, which may contain itself."""

    __slots__ = ("environment", "target")
    kinds = _PLAIN

    def __init__(self, environment: Environment) -> None:
        # Kept alive: it is known by the address of what is in it.
        self.environment = environment
        self.target: Rebuild | None = None

    def __call__(self, value: Any) -> Any:  # noqa: ANN401 - any value
        return value if self.target is None else self.target(value)


class Union:
    """One of several types: the one that the value fits."""

    __slots__ = ("arms", "passes")
    kinds = _PLAIN

    def __init__(self, arms: list[Rebuild], passes: frozenset[object]) -> None:
        self.arms = arms
        self.passes = passes

    def __call__(self, value: Any) -> Any:  # noqa: ANN401 - any value
        kind = type(value)
        if value is None and kind in self.passes:
            return None
        fits: list[tuple[Rebuild, Any]] = []
        for arm in self.arms:
            if kind in arm.kinds and not (isinstance(arm, _Fields) and arm.is_other(value)):
                with contextlib.suppress(ValueError):
                    fits.append((arm, arm(value)))
        if len(fits) > 1:
            fits = [fit for fit in fits if _is_whole(*fit, value)] or fits
        made = [made for _, made in fits]
        if not made:
            if kind in self.passes or all(kind not in arm.kinds for arm in self.arms):
                return value
            message = f"{kind.__qualname__} fits none of the types of a union"
            raise ValueError(message)
        if any(type(other) is not type(made[0]) or other != made[0] for other in made[1:]):
            message = f"{kind.__qualname__} fits several types of a union"
            raise ValueError(message)
        return made[0]


def _is_whole(arm: Rebuild, made: Any, value: Any) -> bool:  # noqa: ANN401 - any value
    """Whether `value` is all that such an instance writes, and none of it is a default."""
    if not isinstance(arm, _Model) or type(value) is not dict:
        return True
    dumps = (made.model_dump(), made.model_dump(round_trip=True))
    return any(value.keys() == dump.keys() for dump in dumps)


class Builder:
    """Makes the above from one annotation, each class once, so that a class may hold itself."""

    def __init__(self) -> None:
        self.found_class = False
        self._fields: dict[object, _Fields] = {}
        self._aliases: dict[object, _Alias] = {}

    def make(self, hint: Any, environment: Environment) -> Rebuild | None:  # noqa: ANN401
        """Return what rebuilds a value of this type; `None` if it holds no class with fields."""
        origin = typing.get_origin(hint)
        arguments = typing.get_args(hint)
        named = hint if origin is None else origin
        name = getattr(named, "__name__", getattr(named, "_name", None))
        made: Rebuild | None = None
        if isinstance(named, TypeVar) or name == _SELF:
            made = environment.get(_SELF if name == _SELF else named)
        elif type(named).__name__ == "TypeAliasType":
            made = self._alias(named, arguments, environment)
        elif hasattr(named, "__supertype__"):
            made = self.make(named.__supertype__, environment)
        elif name in _WRAPPERS:
            made = self.make(arguments[0], environment) if arguments else None
        elif named is typing.Union or named is types.UnionType:
            made = self._union(arguments, environment)
        elif named in _COLLECTION_HINTS or named in _MAPPING_HINTS:
            made = self._container(named, arguments, environment)
        else:
            made = self._class(named, arguments, environment)
        return made

    def _class(
        self,
        named: Any,  # noqa: ANN401 - a class, or something that is none
        arguments: tuple[Any, ...],
        environment: Environment,
    ) -> Rebuild | None:
        if typing.is_typeddict(named):
            hints = typing.get_type_hints(named)
            items = {name: self.make(hint, environment) for name, hint in hints.items()}
            found = {name: item for name, item in items.items() if item is not None}
            return _Keys(found) if found else None
        if is_model(named):
            self.found_class = True
            return _Model(named)
        if isinstance(named, type) and dataclasses.is_dataclass(named):
            parameters = getattr(named, "__parameters__", ())
            made = [self.make(argument, environment) for argument in arguments]
            if not arguments and parameters:
                # Not named here, but maybe by who holds it.
                made = [environment.get(parameter) for parameter in parameters]
            return self.fields(named, dict(zip(parameters, made, strict=False)))
        return None

    def _container(
        self,
        named: Any,  # noqa: ANN401 - a class
        arguments: tuple[Any, ...],
        environment: Environment,
    ) -> Rebuild | None:
        if named is tuple and arguments[1:] != (...,):
            places = [self.make(argument, environment) for argument in arguments]
            return _Places(places) if any(place is not None for place in places) else None
        is_mapping = named in _MAPPING_HINTS
        item = self.make(arguments[1 if is_mapping else 0], environment) if arguments else None
        if item is None:
            return None
        if is_mapping:
            return _Values(item)
        kinds = frozenset(kind for kind in _COLLECTIONS if issubclass(kind, named))
        return _Items(kinds, item)

    def _union(self, arguments: tuple[Any, ...], environment: Environment) -> Rebuild | None:
        arms: list[Rebuild] = []
        passes: set[object] = set()
        for argument in arguments:
            arm = self.make(argument, environment)
            if arm is not None:
                arms.append(arm)
            elif argument in {Any, object} or isinstance(argument, TypeVar):
                passes |= _PLAIN
            else:
                passes.add(typing.get_origin(argument) or argument)
        if len(arms) == 1 and arms[0].kinds == _MAP and dict not in passes:
            return arms[0]  # It passes on all the rest by itself.
        return Union(arms, frozenset(passes)) if arms else None

    def _alias(
        self,
        named: Any,  # noqa: ANN401 - a TypeAliasType
        arguments: tuple[Any, ...],
        environment: Environment,
    ) -> Rebuild | None:
        made = [self.make(argument, environment) for argument in arguments]
        inner = dict(zip(named.__type_params__, made, strict=False))
        identity = (named, tuple(map(id, made)))
        if (known := self._aliases.get(identity)) is None:
            known = self._aliases[identity] = _Alias(inner)
            known.target = self.make(named.__value__, inner)
        return known

    def fields(self, cls: type, environment: Environment) -> _Fields:
        """Return what rebuilds a dataclass, with what its type variables stand for."""
        self.found_class = True
        identity = (cls, tuple((name, id(item)) for name, item in environment.items()))
        if (known := self._fields.get(identity)) is not None:
            return known
        made = self._fields[identity] = _Fields(cls, environment)
        environments = self._environments(cls, environment)
        for name, owner, hint in _field_hints(cls):
            inner = environments.get(owner, _NO_TYPES)
            step = self.make(hint, {**inner, _SELF: made})
            if step is not None:
                made.steps.append((name, step))
            if typing.get_origin(hint) is typing.Literal:
                made.literals.append((name, typing.get_args(hint)))
        return made

    def _environments(self, cls: type, environment: Environment) -> dict[type, Environment]:
        """Return what the type variables of a class and its bases stand for, class by class."""
        found = {cls: environment}
        for base in cls.__dict__.get("__orig_bases__", cls.__bases__):
            origin = typing.get_origin(base) or base
            if isinstance(origin, type) and dataclasses.is_dataclass(origin):
                made = [self.make(argument, environment) for argument in typing.get_args(base)]
                parameters = getattr(origin, "__parameters__", ())
                inner = dict(zip(parameters, made, strict=False))
                found = {**self._environments(origin, inner), **found}
        return found


# Resolving annotations.


def _field_hints(cls: Any) -> Iterable[tuple[str, type, Any]]:  # noqa: ANN401 - a dataclass
    """Yield each field's name, the class that has it, and its type.

    A name that cannot be resolved leaves out that field alone.
    """
    for field in dataclasses.fields(cls):
        owner = cls
        for base in cls.__mro__:
            if base.__dict__.get("__dataclass_fields__", {}).get(field.name) is field:
                owner = base
        module = vars(sys.modules.get(owner.__module__, types))
        # The module's names first, as `typing` has it, but the class itself may be a local one.
        names = {**vars(owner), **module, owner.__name__: owner}
        try:
            hint = resolve(field.type, names, names)
        except Exception:  # noqa: BLE001, S112 - an annotation may be anything
            continue
        yield field.name, owner, hint


def resolve(hint: object, names: dict[str, Any], local_names: Mapping[str, Any]) -> Any:  # noqa: ANN401
    holder = types.SimpleNamespace(__annotations__={"it": hint})
    return typing.get_type_hints(holder, names, dict(local_names), include_extras=True)["it"]
