"""Bugs of the receiving side."""

from collections.abc import Collection, Sequence
from typing import Any

from ftgo_messaging.consumer import batch, dead_letters, duplicates
from ftgo_messaging.consumer.batch import BatchProcessor
from ftgo_messaging.consumer.duplicates import Claim
from ftgo_messaging.consumer.reading import Reading
from ftgo_messaging.runtime.connection import Connection, begin
from ftgo_messaging.transports.kafka import subscription
from ftgo_messaging.transports.port import Batch
from sqlalchemy import text


def ack_before_commit() -> None:
    """Tell the broker, then handle: what dies in between is never handled."""
    handle = Reading._handle

    async def acknowledging(self: Any, taken: Batch) -> None:
        self._subscription.settle(taken)
        await self._subscription._commit()
        await handle(self, taken)

    Reading._handle = acknowledging  # type: ignore[method-assign]


def dedup_apart() -> None:
    """Record the ids in a transaction of their own: a batch that fails afterwards comes again as a duplicate."""
    init = BatchProcessor.__init__
    engines: dict[str, Any] = {}

    def remember_engine(self: Any, handlers: Any, transactions: Any, *more: Any, **named: Any) -> None:
        init(self, handlers, transactions, *more, **named)
        engines["engine"] = transactions.engine

    BatchProcessor.__init__ = remember_engine  # type: ignore[method-assign]
    for name in ("claim", "claim_and_look"):
        setattr(batch, name, _in_own_transaction(getattr(batch, name), engines))


def _in_own_transaction(original: Any, engines: dict[str, Any]) -> Any:
    async def claim(_: Connection, consumer: str, claims: Collection[Claim]) -> Any:
        async with begin(engines["engine"]) as own:
            return await original(own, consumer, claims)

    return claim


def dedup_without_consumer() -> None:
    """The key of a handled message is its id alone: a second consumer of the same event in one database is told that
    it has handled it."""
    for name in ("_CLAIM", "_CLAIM_AND_LOOK"):
        wrong = str(getattr(duplicates, name)).replace(
            " AS u(id, source) ",
            " AS u(id, source) WHERE NOT EXISTS (SELECT 1 FROM processed_messages p WHERE p.message_id = id) ",
        )
        setattr(duplicates, name, text(wrong))


def add_second_consumer() -> None:
    """No bug: Accounting reads ConsumerRegistered under a second name as well, and does nothing with it."""
    from ftgo_accounting import bootstrap
    from ftgo_contracts.channels import CONSUMER_EVENTS
    from ftgo_contracts.consumer.events import ConsumerRegistered
    from ftgo_messaging.consumer.handlers import MessageHandlers

    build = bootstrap.build
    audit = MessageHandlers("accounting-audit")

    @audit.handle(ConsumerRegistered)
    async def on_registered(event: Any, uow: Any) -> None:
        return None

    def with_audit(settings: Any) -> Any:
        service = build(settings)
        service.read(audit, CONSUMER_EVENTS)
        return service

    bootstrap.build = with_audit


def rewind_first_partition() -> None:
    """After a failed batch go back on the first record's partition only: the others are committed past."""
    rewind = subscription.rewind_batch

    def first_only(consumer: Any, records: Sequence[Any]) -> None:
        first = records[0]
        rewind(consumer, [r for r in records if (r.topic, r.partition) == (first.topic, first.partition)])

    subscription.rewind_batch = first_only


def forgotten_dead_letter() -> None:
    """What cannot be handled is logged, and thrown away."""

    async def forget(*_: Any, **__: Any) -> None:
        return None

    dead_letters.write = forget


def no_version_guard() -> None:
    """Write every event into the replica, old ones too."""
    from ftgo_order.adapters import replicas

    for name in ("_KEEP_CONSUMER", "_KEEP_RESTAURANT"):
        statement = str(getattr(replicas, name))
        setattr(replicas, name, text(statement.replace(replicas._NEWER, "")))
