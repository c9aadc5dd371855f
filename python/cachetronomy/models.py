"""Pydantic models of the rows a client returns, and validation into a caller's model."""

from __future__ import annotations

from datetime import datetime
from functools import lru_cache
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter


class ExpiredEntry(BaseModel):
    """An entry that was removed because its time to live had ended."""

    key: str
    expire_at: datetime


class AccessLogEntry(BaseModel):
    """How often a key was read, by all processes ever."""

    model_config = ConfigDict(frozen=True)

    key: str
    access_count: int = Field(ge=0)
    last_accessed: datetime
    last_accessed_by_profile: str


@lru_cache(maxsize=256)
def _adapter(model: Any) -> TypeAdapter[Any]:  # noqa: ANN401 - a type, or `list[int]`
    return TypeAdapter(model)


def validate(value: object, model: Any) -> object:  # noqa: ANN401 - as above
    """Return `value` as an instance of `model`: a pydantic model or any type pydantic knows.

    Raises:
        pydantic.ValidationError: the value does not fit the model.
    """
    return _adapter(model).validate_python(value)
