"""`CacheSettings`: what the environment and the `.env` of the current folder say."""

from __future__ import annotations

import json
from os import PathLike
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    BeforeValidator,
    Field,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    field_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from cachetronomy import environment
from cachetronomy.exceptions import InvalidSettingError
from cachetronomy.profiles import check, reasons

# Where a setting is not called as the core calls it.
_IN_THE_CORE = {"default_profile": "name"}
_UNKNOWN_TO_THE_CORE = {
    "db_path",
    "serializer",
    "offload_reads",
}  # It checks them when a client is opened.


def _split_tags(value: object) -> object:
    """Take a JSON list, or text with commas."""
    if not isinstance(value, str):
        return value
    text = value.strip()
    if not text.startswith("["):
        return [tag.strip() for tag in text.split(",")] if text else []
    try:
        return json.loads(text)
    except ValueError as error:
        message = f'{value!r:.80} is not a JSON list; give ["a", "b"], or a,b'
        raise ValueError(message) from error


class CacheSettings(BaseSettings):
    """Settings of clients that are not given them: `CACHE_*` variables, then those of `.env`.

    Each field is the variable of its name, `time_to_live` is `CACHE_TIME_TO_LIVE`; case makes no
    difference. `None` leaves it to the profile. Other variables are ignored.

    Raises:
        InvalidSettingError: a value is not allowed; it names the variable.
    """

    model_config = SettingsConfigDict(
        env_prefix=environment.PREFIX, env_file=".env", case_sensitive=False, extra="ignore"
    )

    db_path: Path | str = Field(
        default=Path("cachetronomy.db"), description="The database file; text if it is a URL."
    )
    default_profile: str = Field(
        default="default", description="Name of the profile that is active at first."
    )
    serializer: str | None = Field(
        default=None, description="Format to try first: json, orjson, msgpack, or a registered one."
    )
    busy_timeout: float | None = Field(
        default=None, description="Seconds to wait for a lock of another process; 5 if not set."
    )
    offload_reads: bool | None = Field(
        default=None, description="Whether the async client reads no file on the event loop."
    )
    time_to_live: int | None = None
    ttl_cleanup_interval: int | None = None
    memory_based_eviction: bool | None = None
    free_memory_target: float | None = None
    memory_cleanup_interval: int | None = None
    max_items_in_memory: int | None = None
    tags: Annotated[list[str] | None, NoDecode, BeforeValidator(_split_tags)] = None

    def __init__(self, **values: Any) -> None:  # noqa: ANN401 - fields and options of pydantic
        """Read the environment; `values` beat it."""
        env_file = values.get("_env_file", self.model_config.get("env_file"))
        if isinstance(env_file, str | PathLike) and not environment.is_in(env_file):
            values["_env_file"] = None  # Somebody else's may be in any encoding, or unreadable.
        try:
            super().__init__(**values)
        except ValidationError as error:
            texts = (
                f"{environment.PREFIX}{field.upper()}: {reason}" for field, reason in reasons(error)
            )
            raise InvalidSettingError("; ".join(texts)) from error
        except UnicodeDecodeError as error:
            message = f"{env_file}: is not UTF-8, so its {environment.PREFIX}* cannot be read"
            raise InvalidSettingError(message) from error

    @field_validator("*", mode="wrap")
    @classmethod
    def _is_allowed(
        cls, value: object, handler: ValidatorFunctionWrapHandler, info: ValidationInfo
    ) -> object:
        """Ask the core, where the limits are."""
        field = str(info.field_name)
        if value is None or field in _UNKNOWN_TO_THE_CORE:
            return handler(value)
        return check(_IN_THE_CORE.get(field, field), value, handler)

    @field_validator("db_path")
    @classmethod
    def _is_a_path(cls, value: Path | str) -> Path | str:
        """Keep a URL, whose slashes a path would swallow."""
        if value == "":
            message = 'is empty; name a file, or ":memory:"'
            raise ValueError(message)
        return value if isinstance(value, str) and "://" in value else Path(value)
