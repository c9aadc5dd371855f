"""Values to bytes and back, under the import path of the original package."""

from __future__ import annotations

from cachetronomy.serialization import (
    choose_serializer,
    deserialize,
    export_model_schema,
    register_serializer,
    serialize,
)

__all__ = [
    "choose_serializer",
    "deserialize",
    "export_model_schema",
    "register_serializer",
    "serialize",
]
