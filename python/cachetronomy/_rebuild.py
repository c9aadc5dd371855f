"""From plain maps back to instances of dataclasses and pydantic models that somebody named.

Pydantic is imported only when a caller has named something of it.
"""

from __future__ import annotations

import collections.abc
import contextlib
import dataclasses
import functools
import inspect
import typing
from typing import TYPE_CHECKING, Any

from cachetronomy import _core
from cachetronomy._shapes import (
    Builder,
    Environment,
    Rebuild,
    Union,
    by_name,
    is_model,
    load,
    resolve,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pydantic import TypeAdapter


# For the writing side: may an instance be written as the map of its fields?


def describe(cls: type) -> tuple[list[str], bool]:
    """Return the names of a dataclass's fields, and whether it has a `__post_init__`.

    Raises:
        TypeError: no instance can be made from the fields alone.
    """
    fields = dataclasses.fields(cls)
    given = {field.name for field in fields if field.init}
    for name, parameter in inspect.signature(cls).parameters.items():
        is_one = parameter.kind not in {parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD}
        if is_one and parameter.default is parameter.empty and name not in given:
            message = (
                f"{cls.__qualname__} cannot be made from its fields alone: it also needs {name!r}, "
                "which is not kept; give it a default, or store plain values"
            )
            raise TypeError(message)
    return [field.name for field in fields], hasattr(cls, "__post_init__")


def remake(instance: Any, plain: object) -> object:  # noqa: ANN401 - of any dataclass
    """Make a dataclass instance from the map that was written for `instance`.

    Raises:
        ValueError: the map cannot be made into one.
    """
    cls: Any = type(instance)
    if not getattr(cls, "__parameters__", ()):
        rebuild = _exact(cls)
        return plain if rebuild is None else rebuild(plain)
    # A generic class does not name what its type variables stand for; who reads it has to. It is
    # enough that the instance comes back for the reader who knows.
    builder = Builder()
    anything = Union([], frozenset())
    environment: Environment = dict.fromkeys(cls.__parameters__, anything)
    for inside in _classes_in([instance]):
        arm = builder.make(inside, environment)
        if arm is not None:
            anything.arms.append(arm)
    return builder.fields(cls, environment)(plain)


def remake_model(instance: object, plain: object) -> object:
    """Make a pydantic model from what was written for `instance`.

    Raises:
        ValueError: pydantic refuses it.
    """
    return load(type(instance), plain)


def _classes_in(values: Iterable[Any]) -> set[type]:
    """Return the classes of all instances with fields, in plain containers and in each other."""
    found: set[type] = set()
    for value in values:
        if is_model(type(value)):
            found.add(type(value))
        elif dataclasses.is_dataclass(value):
            fields = [getattr(value, field.name) for field in dataclasses.fields(value)]
            found |= {type(value), *_classes_in(fields)}
        elif isinstance(value, dict):
            found |= _classes_in(value.values())
        elif isinstance(value, (list, tuple)):
            found |= _classes_in(value)
    return found


# For the reading side.


def validate(value: object, model: Any) -> object:  # noqa: ANN401 - a type, or `list[int]`
    """Return `value` as an instance of `model`, or of any type that pydantic can validate.

    `value` is what was read, or a live object. A dataclass is made from the map of its fields as
    they are; everything else is pydantic's.

    Raises:
        pydantic.ValidationError: the value does not fit the model.
    """
    if type(value) is model:
        return value
    if is_model(type(value)) or dataclasses.is_dataclass(type(value)):
        value = _plain(value)
    # Pydantic is lenient with its own models, and so may be who names one.
    exact = None if is_model(model) else _once(_exact, model)
    if exact is not None:
        with contextlib.suppress(ValueError):
            rebuilt = exact(value)
            if type(rebuilt) is model:
                return rebuilt
            value = rebuilt
    from pydantic import ValidationError  # noqa: PLC0415 - loaded when it is needed

    adapter = _once(_adapter, model)
    try:
        return adapter.validate_python(value, **by_name())
    except ValidationError:
        # What is in memory may hold other instances than a reader of the file would get.
        if not isinstance(value, (list, tuple, dict)):
            raise
        return adapter.validate_python(_plain(value), **by_name())


def rebuilder(function: Callable[..., Any]) -> Callable[[Any], Any] | None:
    """Return what makes the results of `function` from plain values, by its return annotation.

    `None` if the annotation names no dataclass and no pydantic model, or cannot be resolved. The
    result passes on what is no map, and instances. It raises ValueError for a map that does not
    fit the class, as after a change of the class.
    """
    try:
        made = _build(_return_hint(function))
    except Exception:  # noqa: BLE001 - an annotation may be anything, and is not our business
        return None
    if made is None:
        return None

    def rebuild(value: object) -> object:
        try:
            return made(value)
        except RecursionError as error:
            raise ValueError(*error.args) from error

    return rebuild


def lost(rebuild: Callable[[Any], Any], value: Any) -> str | None:  # noqa: ANN401 - any result
    """Say which part of a result would not come back from the store; `None` if all would.

    Only what holds instances of classes is looked at: a plain value that a function returns in
    their place is its own business.
    """
    if not _classes_in([value]):
        return None
    try:
        place = _core._difference(value, rebuild(_plain(value)))  # noqa: SLF001
    except ValueError as error:
        return f"it would not come back from the store: {error}"
    return None if place is None else f"`value{place}` would not come back from the store"


def promised_version(function: Callable[..., Any]) -> object:
    """Return `__cache_version__` of the class that `function` promises to return, or `None`."""
    try:
        return getattr(_return_hint(function), "__cache_version__", None)
    except Exception:  # noqa: BLE001 - as above
        return None


def _plain(value: object) -> object:
    return _core.deserialize(*_core.serialize(value))


def _once(cached: Any, hint: object) -> Any:  # noqa: ANN401 - one of the two below
    """Call a function that remembers what it made, unless the hint cannot be remembered."""
    try:
        hash(hint)
    except TypeError:
        return cached.__wrapped__(hint)
    return cached(hint)


@functools.lru_cache(maxsize=256)
def _adapter(model: Any) -> TypeAdapter[Any]:  # noqa: ANN401 - as in `validate`
    from pydantic import TypeAdapter  # noqa: PLC0415 - loaded when it is needed

    return TypeAdapter(model)


@functools.lru_cache(maxsize=256)
def _exact(hint: Any) -> Rebuild | None:  # noqa: ANN401 - as in `validate`
    return _build(hint)


def _build(hint: object) -> Rebuild | None:
    builder = Builder()
    made = builder.make(hint, {})
    return made if builder.found_class else None


def _return_hint(function: Any) -> Any:  # noqa: ANN401 - any callable
    while isinstance(function, functools.partial):
        function = function.func
    function = inspect.unwrap(function)
    function = getattr(function, "__func__", function)
    hint = function.__annotations__["return"]
    names = {
        parameter.__name__: parameter for parameter in getattr(function, "__type_params__", ())
    }
    # Classes that are local to where the function was made.
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=False):
        with contextlib.suppress(ValueError):  # Empty still.
            names[name] = cell.cell_contents
    hint = resolve(hint, function.__globals__, names)
    if typing.get_origin(hint) in {collections.abc.Awaitable, collections.abc.Coroutine}:
        return typing.get_args(hint)[-1]
    return hint
