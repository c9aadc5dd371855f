"""Pydantic models of the rows of the four tables, and of a query."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

if TYPE_CHECKING:
    from typing_extensions import Self

_WRITES = ("insert", "update", "delete", "drop", "alter")


class CacheMetadata(BaseModel):
    """All of an entry but its data."""

    key: str
    fmt: str = Field(default="json", description="Format of the data.")
    expire_at: datetime = Field(description="From this moment on it is never returned.")
    tags: list[str] = Field(default_factory=list)
    saved_by_profile: str = Field(description="Name of the profile that was active.")
    version: int = Field(default=1, ge=1)

    @property
    def tags_json(self) -> str:
        """The tags as the table holds them: JSON."""
        return json.dumps(self.tags)

    @model_validator(mode="before")
    @classmethod
    def _tag_by_default(cls, values: object) -> object:
        """Give the tag `default` to what has no tags at all, as the original package does."""
        if isinstance(values, Mapping) and values.get("tags") is None:
            return {**values, "tags": ["default"]}
        return values


class CacheEntry(CacheMetadata):
    """An entry. From a client `data` is the value, from `client.store` the bytes of the table."""

    data: Any


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


class EvictionLogEntry(BaseModel):
    """What left a tier, when and why."""

    model_config = ConfigDict(frozen=True)

    id: int | None = Field(description="Number of the row; `None` before it is written.")
    key: str
    evicted_at: datetime
    reason: str
    last_access_count: int = Field(ge=0)
    evicted_by_profile: str


class CustomQuery(BaseModel):
    """SQL for `SQLiteStore.custom_query`."""

    query: str
    params: Sequence[Any] | None = ()
    schema_type: type[Any] | None = Field(
        default=None, description="Made of each row with its columns as keywords; else dicts."
    )
    autocommit: bool = Field(default=False, description="Must be true for a statement that writes.")

    @model_validator(mode="after")
    def _writes_are_meant(self) -> Self:
        if not self.autocommit and self.query.lstrip().lower().startswith(_WRITES):
            message = "the query writes; set autocommit=True if that is meant"
            raise ValueError(message)
        return self


# The core has checked the rows it hands out, and one odd value of a stranger's row must not hide
# the others: they are not validated again.


def _fields(row: tuple[Any, ...]) -> dict[str, Any]:
    names = ("key", "data", "fmt", "expire_at", "tags", "version", "saved_by_profile")
    fields = dict(zip(names, row, strict=True))
    fields["expire_at"] = datetime.fromisoformat(fields["expire_at"])
    return fields


def metadata_of(row: tuple[Any, ...]) -> CacheMetadata:
    """Make the model of a row of the core, whatever its data."""
    fields = _fields(row)
    del fields["data"]
    return CacheMetadata.model_construct(**fields)


def entry_of(row: tuple[Any, ...]) -> CacheEntry:
    """Make the model of a row of the core."""
    return CacheEntry.model_construct(**_fields(row))


def expired_of(row: tuple[str, str]) -> ExpiredEntry:
    """Make the model of a key and its end."""
    key, expire_at = row
    return ExpiredEntry.model_construct(key=key, expire_at=datetime.fromisoformat(expire_at))


def access_of(row: tuple[str, int, str, str]) -> AccessLogEntry:
    """Make the model of a row of the core."""
    key, count, last_accessed, profile = row
    return AccessLogEntry.model_construct(
        key=key,
        access_count=count,
        last_accessed=datetime.fromisoformat(last_accessed),
        last_accessed_by_profile=profile,
    )


def eviction_of(row: tuple[int, str, str, str, int, str]) -> EvictionLogEntry:
    """Make the model of a row of the core."""
    number, key, evicted_at, reason, count, profile = row
    return EvictionLogEntry.model_construct(
        id=number,
        key=key,
        evicted_at=datetime.fromisoformat(evicted_at),
        reason=reason,
        last_access_count=count,
        evicted_by_profile=profile,
    )
