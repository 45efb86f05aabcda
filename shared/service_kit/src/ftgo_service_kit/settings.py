"""Settings of a service, from the environment. Wrong ones end the start with a sentence that says what to change."""

import os
import sys
from pathlib import Path
from typing import Any, Literal, TypeVar

from ftgo_messaging import BrokerRefuses, transport_at
from pydantic import AliasChoices, Field, FilePath, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from ftgo_service_kit.bearer import read_public_key
from ftgo_service_kit.broker_file import read_broker_file


class ServiceSettings(BaseSettings):
    """Common to all services; a service sets its own prefix: FTGO_ORDER_PORT, FTGO_ORDER_DATABASE_URL, ..."""

    model_config = SettingsConfigDict(extra="ignore")

    host: str = "127.0.0.1"
    port: int = Field(ge=1, le=65535)
    database_url: str = Field(pattern="^postgres(ql)?://.")
    # Of the owner of the tables, for the migrations alone; and of the role with REPLICATION, for a relay that tails the
    # log. Without them the role of database_url does that, too, and has to have the right to.
    migration_database_url: str | None = Field(default=None, pattern="^postgres(ql)?://.")
    relay_database_url: str | None = Field(default=None, pattern="^postgres(ql)?://.")
    # Connections for what clients ask. The other purposes have pools of fixed sizes: see database.py.
    pool_size: int = Field(default=4, ge=2, le=100)
    # Its scheme says which broker. The short form is the address of a Kafka. Not needed, and not looked at, with a file
    # that names brokers and may name others while the process runs: see broker_file.py.
    broker_file: Path | None = Field(default=None, validation_alias="FTGO_BROKER_FILE")
    broker_url: str | None = Field(
        default=None, validate_default=True, validation_alias=AliasChoices("FTGO_BROKER_URL", "FTGO_KAFKA_BOOTSTRAP")
    )
    log_format: str = Field(default="json", pattern="^(json|console)$", validation_alias="FTGO_LOG_FORMAT")
    batch: int = Field(default=500, ge=1, le=5000, validation_alias="FTGO_BATCH")
    relay: Literal["polling", "log-tailing"] = Field(default="polling", validation_alias="FTGO_RELAY")
    relay_shard: int = Field(default=0, ge=0, validation_alias="FTGO_RELAY_SHARD")
    relay_shards: int = Field(default=1, ge=1, le=64, validation_alias="FTGO_RELAY_SHARDS")
    queue_limit: int = Field(default=1000, ge=1, validation_alias="FTGO_QUEUE_LIMIT")
    # Requests in progress, event streams among them; and messages that wait for the broker. More are answered by a 503.
    request_limit: int = Field(default=2000, ge=1, validation_alias="FTGO_REQUEST_LIMIT")
    # Connections that are open, and those from one address. Beyond, who has kept us waiting longest is closed: more
    # than there may be requests in progress, so that somebody always waits.
    connections: int = Field(default=2500, ge=1, validation_alias="FTGO_CONNECTIONS")
    connections_per_address: int = Field(default=2250, ge=1, validation_alias="FTGO_CONNECTIONS_PER_ADDRESS")
    # Further names by which clients reach the service, separated by blanks: "*.example.org" for all below it, "*" for
    # any name.
    allowed_hosts: str = Field(
        default="", pattern=r"^(\*|(\*\.)?[A-Za-z0-9._-]+|\s+)*$", validation_alias="FTGO_ALLOWED_HOSTS"
    )
    outbox_limit: int = Field(default=200_000, ge=1, validation_alias="FTGO_OUTBOX_LIMIT")
    # The name of this process among those of its service, the same after a restart: a pod's or a host's name. Then a
    # restart moves no lanes on Kafka, and on other brokers a process that was killed has its lanes again at once.
    # FTGO_ORDER_INSTANCE, or FTGO_INSTANCE for whatever runs on this host.
    instance: str | None = Field(default=None, pattern="^[A-Za-z0-9._-]{1,200}$")
    # Seconds without progress until a consumer is not ready, and begins anew.
    patience: float = Field(default=60, ge=1, validation_alias="FTGO_PATIENCE")

    # The admin API is off without it: a JWK file with the public P-256 key that signs administrators' tokens.
    admin_key_file: FilePath | None = Field(default=None, validation_alias="FTGO_ADMIN_KEY_FILE")
    admin_issuer: str = Field(default="ftgo-admin", min_length=1, validation_alias="FTGO_ADMIN_ISSUER")

    # For how long the broker keeps messages, and for how long we remember what was done with them: longer.
    topic_retention_days: float = Field(default=7, gt=0, validation_alias="FTGO_TOPIC_RETENTION_DAYS")
    processed_messages_days: float = Field(default=14, validation_alias="FTGO_PROCESSED_MESSAGES_DAYS")
    dead_letters_days: float = Field(default=30, validation_alias="FTGO_DEAD_LETTERS_DAYS")
    sagas_days: float = Field(default=30, validation_alias="FTGO_SAGAS_DAYS")

    @field_validator("processed_messages_days", "dead_letters_days", "sagas_days")
    @classmethod
    def _longer_than_the_topics(cls, days: float, given: ValidationInfo) -> float:
        topics = given.data.get("topic_retention_days")
        if topics is not None and days <= topics:
            raise ValueError(
                f"{days:g} days are not more than the {topics:g} for which topics keep messages "
                "(FTGO_TOPIC_RETENTION_DAYS): a message that is read again later would take effect twice. Raise it"
            )
        return days

    @field_validator("broker_url")
    @classmethod
    def _names_a_broker(cls, url: str | None, given: ValidationInfo) -> str | None:
        if given.data.get("broker_file", cls) is not None:  # there is one, or it was a bad one
            return None
        if url is None:
            raise ValueError("Field required, or FTGO_BROKER_FILE")
        url = url if "://" in url else f"kafka://{url}"
        try:
            transport_at(url)
        except BrokerRefuses as error:
            raise ValueError(str(error)) from error
        return url

    @field_validator("broker_file")
    @classmethod
    def _names_brokers(cls, path: Path | None) -> Path | None:
        if path is not None:
            read_broker_file(path)
        return path

    @field_validator("admin_key_file")
    @classmethod
    def _is_a_public_key(cls, path: Path | None) -> Path | None:
        if path is not None:
            read_public_key(path)
        return path

    @model_validator(mode="before")
    @classmethod
    def _instance_of_the_host(cls, values: dict[str, Any]) -> dict[str, Any]:
        common = os.environ.get("FTGO_INSTANCE")
        return {"instance": common, **values} if common else values

    @field_validator("connections", "connections_per_address")
    @classmethod
    def _more_than_requests(cls, connections: int, given: ValidationInfo) -> int:
        requests = given.data.get("request_limit", 0)
        if connections <= requests:
            raise ValueError(f"not more than the {requests} requests in progress (FTGO_REQUEST_LIMIT). Raise it")
        return connections

    @field_validator("relay_shards")
    @classmethod
    def _shard_exists(cls, shards: int, info: ValidationInfo) -> int:
        shard = info.data.get("relay_shard", 0)
        if shard >= shards:
            raise ValueError(f"relay {shard} of {shards}: FTGO_RELAY_SHARD counts from 0 and stays below it")
        return shards


S = TypeVar("S", bound=ServiceSettings)


def _variable(cls: type[ServiceSettings], field: str) -> str:
    """Of a value that was given, pydantic tells the variable; of one that was not, the field."""
    known = cls.model_fields.get(field)
    alias = None if known is None else known.validation_alias
    return str(alias.choices[0]) if isinstance(alias, AliasChoices) else field


def read_settings(cls: type[S]) -> S:
    """The settings, or exit code 2 with a line for each variable that is missing or wrong."""
    try:
        return cls()  # type: ignore[call-arg]
    except ValidationError as error:
        prefix = cls.model_config.get("env_prefix", "")
        for problem in error.errors():
            field = _variable(cls, str(problem["loc"][0]))
            name = field if field.isupper() else f"{prefix}{field}".upper()
            given = None if name.endswith("_URL") else os.environ.get(name)  # a URL holds a password
            sys.stderr.write(f"{name}: {problem['msg']}{f', not {given!r}' if given is not None else ''}\n")
        raise SystemExit(2) from None
