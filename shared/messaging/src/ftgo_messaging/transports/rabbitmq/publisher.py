"""Publishes to RabbitMQ: many messages in flight at once, each confirmed by itself."""

import asyncio
import re
from collections.abc import Sequence

import structlog
from aiormq import Channel, Connection
from aiormq.abc import ChannelFrame, FrameType
from aiormq.exceptions import AMQPChannelError, DeliveryError
from pamqp.body import ContentBody
from pamqp.commands import Basic
from pamqp.frame import marshal
from pamqp.header import ContentHeader
from yarl import URL

from ftgo_messaging.messages import message as m
from ftgo_messaging.messages.ids import new_id
from ftgo_messaging.messages.message import Kind, Message
from ftgo_messaging.transports.lanes import lane_of
from ftgo_messaging.transports.port import BrokerRefuses, Sent
from ftgo_messaging.transports.rabbitmq.connection import channel_of, connect, disconnect, telling
from ftgo_messaging.transports.rabbitmq.records import PREFIX, properties
from ftgo_messaging.transports.rabbitmq.topology import Topology

log = structlog.get_logger("ftgo.rabbitmq")

MAX_BYTES = 1_000_000
_HEADER_BYTES = 120_000
"""Headers travel in one frame, of 131,072 bytes at most: larger ones would end the connection."""
_NAME_BYTES = 128
"""Of a header's name. The client would cut a longer one off."""

_CONFIRM_SECONDS = 20.0
_STOP_SECONDS = 2.0
_ROUNDS = 3
_EXCHANGE = re.compile(r"exchange '([^']*)'")


class RabbitPublisher:
    """One AMQP channel. RabbitMQ closes it because of one message: the others are sent again, on a new one. When the
    connection is lost, what is not confirmed is unknown; the next call connects again."""

    def __init__(self, url: URL, client: str, lanes: int) -> None:
        self._url = url
        self._client = client
        self._lanes = lanes
        self._connection: Connection | None = None
        self._amqp: Channel | None = None
        self._known: set[str] = set()  # channels that are there, with as many lanes
        self._under_way: set[asyncio.Task[list[Sent]]] = set()

    async def publish(self, messages: Sequence[Message]) -> Sequence[Sent]:
        """See the port. Raises BrokerRefuses as well, for a wrong password. An event that no queue is bound for is
        confirmed, for nobody wants it; any other message is refused then."""
        task = asyncio.ensure_future(self._publish(messages))
        self._under_way.add(task)
        try:
            with telling():
                return await task
        except BaseException:
            await self._abandon()
            raise
        finally:
            self._under_way.discard(task)

    async def _publish(self, messages: Sequence[Message]) -> list[Sent]:
        results: dict[int, Sent | BaseException] = {}
        for _ in range(_ROUNDS):
            amqp = await self._channel()
            missing = await self._missing({each.channel for each in messages})
            todo = [i for i in range(len(messages)) if not isinstance(results.get(i), Sent)]
            results |= {i: Sent.REFUSED for i in todo if messages[i].channel in missing}
            results |= await self._send(amqp, messages, [i for i in todo if messages[i].channel not in missing])
            errors = [error for error in results.values() if not isinstance(error, Sent)]
            closed = next((error for error in errors if isinstance(error, AMQPChannelError)), None)
            if closed is None:
                break
            # One exchange is to blame, deleted just now or forbidden; the others' messages go into the next round.
            log.warning("publish.channel_closed", error=repr(closed))
            guilty = _EXCHANGE.search(str(closed))
            self._known.clear()
            for i in todo if guilty else ():
                if messages[i].channel == guilty[1]:  # type: ignore[index]
                    results[i] = Sent.REFUSED
        if errors:
            log.warning("publish.failed", failed=len(errors), of=len(messages), error=repr(errors[0]))
            await self._abandon()
        return [result if isinstance(result, Sent) else Sent.UNKNOWN for _, result in sorted(results.items())]

    async def _channel(self) -> Channel:
        if self._connection is None or not self._connection.is_opened:
            await self._abandon()
            self._connection = await connect(self._url, self._client)
        if self._amqp is None or self._amqp.is_closed:
            self._amqp = await channel_of(self._connection, confirms=True)
        return self._amqp

    async def _missing(self, channels: set[str]) -> set[str]:
        """Those that are not there, or have another number of lanes: sent to a missing exchange, one message would cost
        the AMQP channel, and all others their confirmation."""
        missing: set[str] = set()
        if unknown := channels - self._known:
            assert self._connection is not None  # noqa: S101 - _channel() was called
            async with Topology(self._connection, self._lanes) as topology:
                for name in unknown:
                    try:
                        exists = await topology.exists(name)
                    except BrokerRefuses as refusal:
                        log.error("publish.refused", channel=name, error=str(refusal))
                        exists = False
                    (self._known if exists else missing).add(name)
        return missing

    async def _send(
        self, amqp: Channel, messages: Sequence[Message], indexes: Sequence[int]
    ) -> dict[int, Sent | BaseException]:
        """Send these, in this order, and wait for what becomes of them."""
        results: dict[int, Sent | BaseException] = {}
        waiting: dict[int, asyncio.Future[object]] = {}
        try:
            async with asyncio.timeout(_CONFIRM_SECONDS):
                async with amqp.lock:
                    payload: list[bytes] = []
                    for i in indexes:
                        identity = new_id() if messages[i].id in amqp.message_id_delivery_tag else messages[i].id
                        frames = self._frames(amqp, messages[i], identity)
                        if frames is None:
                            results[i] = Sent.REFUSED
                            continue
                        waiting[i] = _expected(amqp, identity)
                        payload.append(frames)
                    # Written at once: message by message, as the client does it, costs more than all else.
                    if payload:
                        await amqp.write_queue.put(ChannelFrame(payload=b"".join(payload), should_close=False))
                if waiting:
                    await asyncio.wait(waiting.values())
        except TimeoutError:
            log.warning("publish.not_confirmed", seconds=_CONFIRM_SECONDS)
        for i, confirmation in waiting.items():
            results[i] = _outcome(confirmation, messages[i])
        return results

    def _frames(self, amqp: Channel, message: Message, identity: str) -> bytes | None:
        """None for what AMQP, or a bound of ours, has no room for."""
        command = Basic.Publish(
            exchange=message.channel,
            routing_key=str(lane_of(message.key, self._lanes)),
            mandatory=message.headers.get(m.KIND) != Kind.EVENT,
        )
        header = ContentHeader(body_size=len(message.body), properties=properties(message, identity))
        room = amqp.max_content_size
        body = [ContentBody(message.body[at : at + room]) for at in range(0, len(message.body), room)]
        frames: list[FrameType] = [command, header, *body]
        try:
            if _is_too_large(message):
                return None
            return b"".join(marshal(frame, amqp.number) for frame in frames)
        except ValueError as error:  # a name that is too long, a text that is no Unicode
            log.warning("publish.refused", channel=message.channel, id=message.id, error=repr(error)[:500])
            return None

    async def close(self) -> None:
        """Send what is under way, within 2 s, and disconnect."""
        if self._under_way:
            await asyncio.wait(set(self._under_way), timeout=_STOP_SECONDS)
        await self._abandon()

    async def _abandon(self) -> None:
        """Disconnect; what is not written yet is never sent."""
        connection, self._connection, self._amqp = self._connection, None, None
        self._known.clear()
        if connection is not None:
            await disconnect(connection)


def _is_too_large(message: Message) -> bool:
    headers = [(len(name.encode()) + len(PREFIX), len(value.encode())) for name, value in message.headers.items()]
    size = sum(map(sum, headers)) + 5 * len(headers) + len(message.key.encode())
    too_long = any(name > _NAME_BYTES for name, _ in headers)
    return too_long or size > _HEADER_BYTES or size + len(message.body) > MAX_BYTES


def _expected(amqp: Channel, identity: str) -> asyncio.Future[object]:
    """What the client will give the confirmation of the next message to. It knows a returned one by its id."""
    amqp.delivery_tag += 1
    confirmation = amqp.confirmations[amqp.delivery_tag] = amqp.create_future()
    amqp.message_id_delivery_tag[identity] = amqp.delivery_tag
    confirmation.add_done_callback(lambda _: amqp.message_id_delivery_tag.pop(identity, None))
    return confirmation


def _outcome(confirmation: asyncio.Future[object], message: Message) -> Sent | BaseException:
    if not confirmation.done():
        return TimeoutError()
    if confirmation.cancelled():
        return asyncio.CancelledError()
    error = confirmation.exception()
    if isinstance(error, DeliveryError):  # returned, or refused by a queue
        log.warning("publish.refused", channel=message.channel, id=message.id, error=repr(error)[:500])
        return Sent.REFUSED
    return error or Sent.CONFIRMED
