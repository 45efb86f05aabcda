"""Reads channels from Kafka in batches and commits offsets some time after the database has committed.

One record is waited for without polling; what else has been fetched by then is taken along.
"""

import asyncio
import contextlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import structlog
from aiokafka import ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import ConsumerStoppedError, CorruptRecordException, KafkaError, UnsupportedCodecError
from faststream import AckPolicy
from faststream.kafka import KafkaBroker

from ftgo_messaging.runtime.errors import TransientError
from ftgo_messaging.transports.kafka.binding import lane_of_partition, origin_of, record_of
from ftgo_messaging.transports.kafka.bounds import (
    FETCHED_BYTES,
    fetch_no_more_than_one_answer,
    some_of,
)
from ftgo_messaging.transports.kafka.codecs import bound_decompression
from ftgo_messaging.transports.kafka.lag import measure
from ftgo_messaging.transports.kafka.membership import Membership
from ftgo_messaging.transports.kafka.offsets import Offsets
from ftgo_messaging.transports.kafka.positions import Positions, rewind_batch
from ftgo_messaging.transports.kafka.taking import first_record, taken_along
from ftgo_messaging.transports.kafka.unreadable import Unreadable, find_unreadable
from ftgo_messaging.transports.port import Batch, BrokerRefuses

log = structlog.get_logger("ftgo.kafka")

SESSION_SECONDS = 10.0
_OPEN_SECONDS = 30.0
_REVOKE_SECONDS = 5.0
"""How long a rebalance waits for the batch in hand; well below the time that the broker waits for us."""
_COMMIT_SECONDS = 2.0
_STOP_SECONDS = 5.0

bound_decompression()


@dataclass(frozen=True, slots=True, eq=False)
class _Receipt:
    """The client's records, and whether they come from a batch that the client could not read."""

    records: Sequence[Any]
    unreadable: bool = False


class KafkaSubscription:
    """A member of the group that has the consumer's name.

    ``partitions`` are those that it may read at present; ``revocations`` counts how often some were given up."""

    def __init__(self, bootstrap: str, consumer: str, topics: Sequence[str], instance: str | None = None) -> None:
        self._name = consumer
        self._instance = instance
        self._disconnecting: asyncio.Task[None] | None = None
        self._membership = Membership(6 * SESSION_SECONDS)
        self._offsets = Offsets(consumer)
        self._unreadable: Unreadable | None = None
        self._again: list[Any] = []
        self._waiting = False
        self._idle = asyncio.Event()
        self._idle.set()
        self.positions = Positions()
        self.revocations = 0
        self._broker = KafkaBroker(
            bootstrap,
            apply_types=False,
            logger=None,
            allow_auto_create_topics=False,
            consumer_only=True,  # or it opens a producer and an admin client too
            graceful_timeout=_STOP_SECONDS,
            # How soon a topic is seen that was deleted and made anew.
            metadata_max_age_ms=30_000,
        )
        # Without a handler FastStream reads nothing by itself: ``take`` asks its client.
        self._subscriber = self._broker.subscriber(
            *topics,
            group_id=consumer,
            group_instance_id=instance,
            ack_policy=AckPolicy.MANUAL,  # or the client commits by itself what it has fetched
            auto_offset_reset="earliest",
            listener=_Listener(self),
            session_timeout_ms=round(SESSION_SECONDS * 1000),
            # A member learns by a heartbeat that another has left.
            heartbeat_interval_ms=700,
            fetch_max_bytes=FETCHED_BYTES,
            # Far above the time of one batch, which the runner's retry keeps short.
            max_poll_interval_ms=300_000,
        )

    # -- life ------------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        try:
            # Joining a group may hang for ever on a broker that comes and goes.
            async with asyncio.timeout(_OPEN_SECONDS):
                await self._broker.start()
        except Exception as error:
            await self._disconnect()
            if isinstance(error, KafkaError | TimeoutError):
                raise TransientError(f"consumer {self._name} waits for Kafka: {error!r}") from error
            raise

    async def close(self) -> None:
        """Commit the offsets of what is settled, and leave the group unless the membership is static."""
        self._idle.set()  # what is in hand now is nobody's: the group need not wait for it
        await self._commit()
        await self._disconnect()
        self._unreadable, self._again = None, []

    async def _disconnect(self) -> None:
        """Whoever waits for it may be cut off, the disconnecting never is: by a second attempt the client, half
        stopped, would not be closed any more, and it would go on to connect again every 30 s."""
        if self._disconnecting is None or self._disconnecting.done():
            self._disconnecting = asyncio.create_task(self._end(), name=f"disconnect-{self._name}")
        await asyncio.shield(self._disconnecting)

    async def _end(self) -> None:
        client = getattr(self._client, "_client", None)
        try:
            await self._broker.stop()
        except Exception as error:
            log.warning("consumer.not_stopped", consumer=self._name, error=repr(error))
        finally:
            if client is not None:
                await client.close()

    @property
    def _client(self) -> Any:
        return self._subscriber.consumer

    @property
    def partitions(self) -> frozenset[TopicPartition]:
        return frozenset() if self._client is None else frozenset(self._client.assignment())

    async def assign(self, lanes: Collection[str]) -> None:
        """Nothing: the group does that."""

    async def extend(self, batch: Batch) -> None:
        """Nothing: the client tells the group by itself that it lives."""

    async def backlog(self) -> Mapping[str, int | None]:
        client = self._client
        if client is None:
            return {}
        lag = await measure(client, self.positions, lambda: self._waiting)
        if lag.passed:
            self.positions.move(lag.passed)
            self._offsets.handled(lag.passed, client)
        return {lane_of_partition(*p): lag.of.get(p) for p in self.partitions}

    # -- reading ---------------------------------------------------------------------------------------------------

    async def take(self, most: int, wait: float) -> Batch | None:
        self._check_instance()
        client = self._client
        if client is None:
            raise TransientError(f"consumer {self._name} is not connected")
        if self._unreadable is not None and (batch := self._of_the_unreadable(client, most)):
            return batch
        self._waiting = True
        try:
            first = await first_record(client, wait)
        except TimeoutError:
            return None
        except ConsumerStoppedError as error:
            raise TransientError(f"consumer {self._name} is not connected any more") from error
        except Exception as error:
            return await self._what_cannot_be_read(client, most, error)
        finally:
            self._waiting = False
        records = await taken_along(client, first, most, lambda: self.revocations, self._name)
        return self._in_hand(_Receipt(records)) if records else None

    async def _what_cannot_be_read(self, client: Any, most: int, error: Exception) -> Batch | None:
        """Raises TransientError, unless it is records that are to blame, and still cannot be read."""
        if not isinstance(error, KafkaError) or isinstance(error, CorruptRecordException | UnsupportedCodecError):
            log.warning("consumer.fetch_failed", consumer=self._name, error=repr(error))
            try:
                self._unreadable = await find_unreadable(client)
            except Exception as trouble:
                raise TransientError(f"{error!r}, and then {trouble!r}") from trouble
            if self._unreadable is not None:
                return self._of_the_unreadable(client, most)
        raise TransientError(repr(error)) from error

    def _of_the_unreadable(self, client: Any, most: int) -> Batch | None:
        """The next records of a batch that the client cannot read. None behind its end."""
        found = self._unreadable
        if found is None:
            return None
        chunk, self._again = self._again[:most], self._again[most:]
        if not chunk:
            chunk = some_of(found.records, most)
        if not chunk:
            self._unreadable = None
            client.seek(found.partition, found.end)
            self.positions.move({found.partition: found.end})
            self._offsets.handled({found.partition: found.end}, client)
            return None
        log.error("consumer.unreadable", consumer=self._name, record=origin_of(chunk[0]), error=found.cause)
        return self._in_hand(_Receipt(chunk, unreadable=True), found.error)

    def _in_hand(self, receipt: _Receipt, defect: str = "") -> Batch:
        self._idle.clear()
        self.positions.begin(receipt.records)
        return Batch([record_of(r, defect) for r in receipt.records], receipt)

    def settle(self, batch: Batch) -> None:
        receipt: Any = batch.receipt
        if self._client is not None:
            self._offsets.handled(self.positions.handled(receipt.records), self._client)
        self._idle.set()

    async def release(self, batch: Batch) -> None:
        receipt: Any = batch.receipt
        if receipt.unreadable:
            self._again = [*receipt.records, *self._again]
        elif self._client is not None:
            rewind_batch(self._client, receipt.records)
        self._idle.set()

    # -- rebalances ------------------------------------------------------------------------------------------------

    async def revoked(self) -> None:
        """Give the partitions up only when the batch in hand has ended and its offsets are committed, so that the
        next owner begins behind it. One that takes too long is left to the duplicate check of its messages."""
        self.revocations += 1
        try:
            await asyncio.wait_for(self._idle.wait(), _REVOKE_SECONDS)
        except TimeoutError:
            log.warning("consumer.revoked_in_flight", consumer=self._name)
        await self._commit()

    async def _commit(self) -> None:
        """Tell Kafka the offsets now. Not for long: without a coordinator the client would wait for ever."""
        if self._client is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._offsets.commit(self._client), _COMMIT_SECONDS)

    def assigned(self) -> None:
        fetch_no_more_than_one_answer(self._client)
        self.positions.clear()
        self._offsets.forget()
        self._unreadable, self._again = None, []
        coordinator = getattr(self._client, "_coordinator", None)
        self._membership.joined(getattr(coordinator, "member_id", ""))

    def _check_instance(self) -> None:
        if self._instance and self._membership.contested:
            log.error("consumer.instance_used_twice", consumer=self._name, instance=self._instance)
            raise BrokerRefuses(
                f"consumer {self._name}: another process is the instance {self._instance!r} too. Give each its own name"
            )


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]
    def __init__(self, subscription: KafkaSubscription) -> None:
        self._subscription = subscription

    async def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        if revoked:
            await self._subscription.revoked()

    async def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        self._subscription.assigned()
