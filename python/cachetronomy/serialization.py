"""Values to bytes and back, as the tables hold them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cachetronomy import _core
from cachetronomy._core import register_serializer

if TYPE_CHECKING:
    from os import PathLike

    from pydantic import BaseModel

__all__ = [
    "choose_serializer",
    "deserialize",
    "export_model_schema",
    "register_serializer",
    "serialize",
]


def serialize(
    obj: object,
    *,
    prefer: str | None = None,
    indent: int | None = None,
    sort_keys: bool | None = None,
    ensure_ascii: bool | None = None,
) -> tuple[bytes, str]:
    """Return a value as bytes, and the name of their format.

    Args:
        obj: the value.
        prefer: the format to try first, `"json"`, `"orjson"`, `"msgpack"`, `"cachetronomy"`, or a
            registered one. Default: the first of `json`, `msgpack` and `cachetronomy` that
            carries the value exactly.
        indent: spaces a level, where the format is JSON; as of `json.dumps`.
        sort_keys: whether to sort the keys there; default not.
        ensure_ascii: whether to escape all but ASCII there; default not.

    Raises:
        SerializationError: no format carries the value.
        InvalidSettingError: `prefer` is unknown.
    """
    data, fmt = _core.serialize(obj, prefer=prefer)
    if fmt not in {"json", "orjson"} or (indent, sort_keys, ensure_ascii) == (None, None, None):
        return data, fmt
    text = json.dumps(
        json.loads(data), indent=indent, sort_keys=bool(sort_keys), ensure_ascii=bool(ensure_ascii)
    )
    return text.encode(), fmt


def deserialize(data: bytes | str, fmt: str, *, model_type: Any = None) -> Any:  # noqa: ANN401
    """Return the value of bytes in a format, as an instance of `model_type` if that is given.

    Args:
        data: what `serialize` returned; or as text, whose characters are the bytes where the
            format is binary.
        fmt: the name of the format.
        model_type: a pydantic model, or any type that pydantic can validate.

    Raises:
        CorruptEntryError: the bytes are not in that format.
        pydantic.ValidationError: the value does not fit `model_type`.
    """
    if isinstance(data, str):
        data = data.encode("latin-1" if fmt in {"msgpack", "cachetronomy"} else "utf-8")
    value = _core.deserialize(data, fmt)
    if model_type is None:
        return value
    from cachetronomy._rebuild import validate  # noqa: PLC0415 - pydantic is loaded late

    return validate(value, model_type)


def choose_serializer(obj: object, prefer: str | None = None) -> str:
    """Return the name of the format that `serialize` uses for a value.

    Raises:
        SerializationError, InvalidSettingError: as `serialize`.
    """
    return _core.serialize(obj, prefer=prefer)[1]


def export_model_schema(model_cls: type[BaseModel], out_path: str | PathLike[str]) -> None:
    """Write the JSON schema of a pydantic model to a file.

    Raises:
        OSError: the file cannot be written.
    """
    schema = model_cls.model_json_schema()
    Path(out_path).write_text(json.dumps(schema, indent=2, sort_keys=True), encoding="utf-8")
