"""Settings of a service, from the environment. Wrong ones end the start with a sentence that says what to change."""

import os
import sys
from typing import Any, Literal, TypeVar

from pydantic import Field, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict


class ServiceSettings(BaseSettings):
    """Common to all services; a service sets its own prefix: FTGO_ORDER_PORT, FTGO_ORDER_DATABASE_URL, ..."""

    model_config = SettingsConfigDict(extra="ignore")

    host: str = "127.0.0.1"
    port: int = Field(ge=1, le=65535)
    database_url: str = Field(pattern="^postgres(ql)?://.")
    pool_size: int = Field(default=10, ge=2, le=100)
    kafka_bootstrap: str = Field(validation_alias="FTGO_KAFKA_BOOTSTRAP")
    log_format: str = Field(default="json", pattern="^(json|console)$", validation_alias="FTGO_LOG_FORMAT")
    batch: int = Field(default=500, ge=1, le=5000, validation_alias="FTGO_BATCH")
    relay: Literal["polling", "log-tailing"] = Field(default="polling", validation_alias="FTGO_RELAY")
    relay_shard: int = Field(default=0, ge=0, validation_alias="FTGO_RELAY_SHARD")
    relay_shards: int = Field(default=1, ge=1, le=64, validation_alias="FTGO_RELAY_SHARDS")
    queue_limit: int = Field(default=1000, ge=1, validation_alias="FTGO_QUEUE_LIMIT")
    # The name of this process among those of its service, the same after a restart: a pod's or a host's name. Then a
    # restart moves no partitions. FTGO_ORDER_INSTANCE, or FTGO_INSTANCE for whatever runs on this host.
    instance: str | None = Field(default=None, pattern="^[A-Za-z0-9._-]{1,200}$")
    # Seconds without progress until a consumer is not ready, and begins anew.
    patience: float = Field(default=60, ge=1, validation_alias="FTGO_PATIENCE")

    @model_validator(mode="before")
    @classmethod
    def _instance_of_the_host(cls, values: dict[str, Any]) -> dict[str, Any]:
        common = os.environ.get("FTGO_INSTANCE")
        return {"instance": common, **values} if common else values

    @field_validator("relay_shards")
    @classmethod
    def _shard_exists(cls, shards: int, info: ValidationInfo) -> int:
        shard = info.data.get("relay_shard", 0)
        if shard >= shards:
            raise ValueError(f"relay {shard} of {shards}: FTGO_RELAY_SHARD counts from 0 and stays below it")
        return shards


S = TypeVar("S", bound=ServiceSettings)


def read_settings(cls: type[S]) -> S:
    """The settings, or exit code 2 with a line for each variable that is missing or wrong."""
    try:
        return cls()  # type: ignore[call-arg]
    except ValidationError as error:
        prefix = cls.model_config.get("env_prefix", "")
        for problem in error.errors():
            field = str(problem["loc"][0])
            name = field if field.isupper() else f"{prefix}{field}".upper()
            given = None if name.endswith("_URL") else os.environ.get(name)  # a URL holds a password
            sys.stderr.write(f"{name}: {problem['msg']}{f', not {given!r}' if given is not None else ''}\n")
        raise SystemExit(2) from None
