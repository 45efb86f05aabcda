"""What channels are in RabbitMQ: exchanges and queues, made once and never changed."""

from collections.abc import Collection
from types import TracebackType
from typing import Self

from aiormq import Connection
from aiormq.abc import AbstractChannel, ArgumentsType
from aiormq.exceptions import ChannelNotFoundEntity, ChannelPreconditionFailed

from ftgo_messaging.transports.port import BrokerRefuses
from ftgo_messaging.transports.rabbitmq.connection import channel_of

_QUEUE: ArgumentsType = {"x-queue-type": "classic", "x-single-active-consumer": True}


def queue_of(channel: str, consumer: str, lane: int) -> str:
    return f"{channel}.{consumer}.{lane}"


class Topology:
    """Asks, and declares. A question about what is missing costs its AMQP channel; so it has one of its own."""

    def __init__(self, connection: Connection, lanes: int) -> None:
        self._connection = connection
        self._lanes = lanes
        self._amqp: AbstractChannel | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._amqp is not None and not self._amqp.is_closed:
            await self._amqp.close()

    async def _channel(self) -> AbstractChannel:
        if self._amqp is None or self._amqp.is_closed:
            self._amqp = await channel_of(self._connection)
        return self._amqp

    async def exists(self, channel: str) -> bool:
        """Raises BrokerRefuses when it has another number of lanes."""
        try:
            await (await self._channel()).exchange_declare(channel, passive=True)
        except ChannelNotFoundEntity:
            return False
        await self._declare_exchange(channel)
        return True

    async def declare(self, channel: str, consumers: Collection[str]) -> bool:
        """Make the channel, and the queues of these consumers. Whether it was missing."""
        missing = not await self.exists(channel)
        if missing:
            await (await self._channel()).exchange_declare(
                self._unroutable, exchange_type="fanout", durable=True, internal=True
            )
            await self._declare_exchange(channel)
        amqp = await self._channel()
        for consumer in consumers:
            for lane in range(self._lanes):
                queue = queue_of(channel, consumer, lane)
                await amqp.queue_declare(queue, durable=True, arguments=_QUEUE)
                await amqp.queue_bind(queue, channel, str(lane))
        return missing

    async def waiting(self, queue: str) -> int | None:
        """How many messages wait there, those not counted that were given to somebody. None: there is no such queue."""
        try:
            return (await (await self._channel()).queue_declare(queue, passive=True)).message_count
        except ChannelNotFoundEntity:
            return None

    @property
    def _unroutable(self) -> str:
        """Where a channel's messages go that have no queue: nowhere, for it has none either.

        It is there for its name. RabbitMQ refuses to declare an exchange again with another alternate exchange, and
        compares no other argument of it: so the number of lanes is recorded, and compared."""
        return f"ftgo.lanes.{self._lanes}"

    async def _declare_exchange(self, channel: str) -> None:
        try:
            await (await self._channel()).exchange_declare(
                channel, exchange_type="direct", durable=True, arguments={"alternate-exchange": self._unroutable}
            )
        except ChannelPreconditionFailed as error:
            raise BrokerRefuses(
                f"Channel {channel} is there with another number of lanes than {self._lanes}, or was made by somebody "
                f"else: {error}. Set the number that it has in FTGO_BROKER_URL (?lanes=...), or delete the exchange."
            ) from None
