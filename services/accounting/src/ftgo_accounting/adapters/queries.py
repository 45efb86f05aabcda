"""What HTTP reads."""

from dataclasses import dataclass
from datetime import datetime

from ftgo_messaging.transaction import rows
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine

from ftgo_accounting.adapters.tables import ACCOUNTS, account_entries, entry_from_row
from ftgo_accounting.domain.account import Account, Entry

_NEWEST = 100


@dataclass(frozen=True, slots=True)
class Statement:
    """An account and its newest entries, newest first, each with its time."""

    account: Account
    entries: list[tuple[Entry, datetime]]


async def statement_of(consumer_id: str, engine: AsyncEngine) -> Statement | None:
    """None if the consumer has no account. The balance may be a moment older than the newest entry."""
    newest = (
        select(account_entries)
        .where(account_entries.c.consumer_id == consumer_id)
        .order_by(account_entries.c.version.desc())
        .limit(_NEWEST)
    )
    balance = rows.select_by_key(ACCOUNTS.table, ACCOUNTS.key, False)
    async with engine.connect() as connection:
        account = (await connection.execute(balance, {"keys": [consumer_id]})).mappings().one_or_none()
        if account is None:
            return None
        entries = (await connection.execute(newest)).mappings().all()
    return Statement(ACCOUNTS.from_row(dict(account)), [(entry_from_row(dict(row)), row["at"]) for row in entries])
