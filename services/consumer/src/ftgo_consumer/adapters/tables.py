"""The tables of the consumer service, and how consumers are kept in them."""

from collections.abc import Mapping
from typing import Any

from ftgo_contracts.money import Money
from ftgo_messaging import Aggregates, messaging_tables
from sqlalchemy import BigInteger, Column, DateTime, Identity, Integer, MetaData, Numeric, Table, Text, Uuid

from ftgo_consumer.domain.consumer import Consumer, ConsumerStatus

METADATA = MetaData()
messaging_tables(METADATA)

consumers = Table(
    "consumers",
    METADATA,
    Column("id", Uuid(as_uuid=False), primary_key=True),
    Column("first_name", Text, nullable=False),
    Column("last_name", Text, nullable=False),
    Column("email", Text, nullable=True),
    Column("status", Text, nullable=False),
    Column("order_limit", Numeric(12, 2), nullable=False),
    Column("version", Integer, nullable=False),
)

outbound_mail = Table(
    "outbound_mail",
    METADATA,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("consumer_id", Uuid(as_uuid=False), nullable=False),
    Column("order_id", Uuid(as_uuid=False), nullable=False),
    Column("text", Text, nullable=False),
    Column("at", DateTime(timezone=True), nullable=False),
)
"""Append-only: what is to be told to consumers. A handler never sends mail itself, for a rolled-back handler cannot
take a mail back; a sender reads this table."""


def _from_row(row: Mapping[str, Any]) -> Consumer:
    return Consumer(
        id=str(row["id"]),
        first_name=row["first_name"],
        last_name=row["last_name"],
        email=row["email"],
        status=ConsumerStatus(row["status"]),
        order_limit=Money.of(row["order_limit"]),
        version=row["version"],
    )


def _to_row(consumer: Consumer) -> dict[str, Any]:
    return {
        "id": consumer.id,
        "first_name": consumer.first_name,
        "last_name": consumer.last_name,
        "email": consumer.email,
        "status": consumer.status.value,
        "order_limit": consumer.order_limit.decimal,
        "version": consumer.version,
    }


CONSUMERS = Aggregates(consumers, "id", _from_row, _to_row)
# Verifying changes nothing, so it need not wait for those who do.
CONSUMERS_TO_READ = Aggregates(consumers, "id", _from_row, _to_row, lock=False)
