"""The tables of the accounting service.

``account_entries`` is the truth. A row of ``accounts`` is what the entries of an account add up to, written in the
same transaction: decisions read one row instead of a whole history, and lock it.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from ftgo_contracts.money import Money
from ftgo_messaging import Aggregates, messaging_tables
from ftgo_messaging.messages import codec
from sqlalchemy import Column, DateTime, Integer, MetaData, Numeric, Table, Text, Uuid
from sqlalchemy.dialects.postgresql import JSON

from ftgo_accounting.domain.account import Account, AccountState, Entry, EntryType
from ftgo_accounting.domain.authorization import Authorization, AuthorizationState

METADATA = MetaData()
messaging_tables(METADATA)

account_entries = Table(
    "account_entries",
    METADATA,
    Column("consumer_id", Uuid(as_uuid=False), primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("type", Text, nullable=False),
    Column("amount", Numeric(12, 2), nullable=False),
    Column("change", Numeric(12, 2), nullable=False),
    Column("order_id", Uuid(as_uuid=False), nullable=True),
    Column("at", DateTime(timezone=True), nullable=False),
)

accounts = Table(
    "accounts",
    METADATA,
    Column("consumer_id", Uuid(as_uuid=False), primary_key=True),
    Column("credit_limit", Numeric(12, 2), nullable=False),
    Column("authorized", Numeric(12, 2), nullable=False),
    Column("state", Text, nullable=False),
    Column("version", Integer, nullable=False),
)

authorizations = Table(
    "authorizations",
    METADATA,
    Column("order_id", Uuid(as_uuid=False), primary_key=True),
    Column("id", Uuid(as_uuid=False), nullable=False),
    Column("consumer_id", Uuid(as_uuid=False), nullable=False),
    Column("amount", Numeric(12, 2), nullable=False),
    Column("state", Text, nullable=False),
    Column("declined", Text, nullable=False, server_default=""),
    Column("revisions", JSON, nullable=False, server_default="[]"),
)


def entry_from_row(row: Mapping[str, Any]) -> Entry:
    return Entry(
        consumer_id=str(row["consumer_id"]),
        version=row["version"],
        type=EntryType(row["type"]),
        amount=Money.of(row["amount"]),
        change=Money.of(row["change"]),
        order_id=None if row["order_id"] is None else str(row["order_id"]),
    )


def entry_to_row(entry: Entry, at: datetime) -> dict[str, Any]:
    return {
        "consumer_id": entry.consumer_id,
        "version": entry.version,
        "type": entry.type.value,
        "amount": entry.amount.decimal,
        "change": entry.change.decimal,
        "order_id": entry.order_id,
        "at": at,
    }


def _account_from_row(row: Mapping[str, Any]) -> Account:
    return Account(
        consumer_id=str(row["consumer_id"]),
        credit_limit=Money.of(row["credit_limit"]),
        authorized=Money.of(row["authorized"]),
        state=AccountState(row["state"]),
        version=row["version"],
    )


def _account_to_row(account: Account) -> dict[str, Any]:
    return {
        "consumer_id": account.consumer_id,
        "credit_limit": account.credit_limit.decimal,
        "authorized": account.authorized.decimal,
        "state": account.state.value,
        "version": account.version,
    }


def _authorization_from_row(row: Mapping[str, Any]) -> Authorization:
    return Authorization(
        order_id=str(row["order_id"]),
        id=str(row["id"]),
        consumer_id=str(row["consumer_id"]),
        amount=Money.of(row["amount"]),
        state=AuthorizationState(row["state"]),
        declined=row["declined"],
        revisions=codec.decode(row["revisions"], tuple[tuple[str, str], ...]),
    )


def _authorization_to_row(authorization: Authorization) -> dict[str, Any]:
    return {
        "order_id": authorization.order_id,
        "id": authorization.id,
        "consumer_id": authorization.consumer_id,
        "amount": authorization.amount.decimal,
        "state": authorization.state.value,
        "declined": authorization.declined,
        "revisions": codec.encode(authorization.revisions).decode(),
    }


ACCOUNTS = Aggregates(accounts, "consumer_id", _account_from_row, _account_to_row)
AUTHORIZATIONS = Aggregates(authorizations, "order_id", _authorization_from_row, _authorization_to_row)
