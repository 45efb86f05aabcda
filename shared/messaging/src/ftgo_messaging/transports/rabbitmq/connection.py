"""Connections to RabbitMQ, and what its refusals mean."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Iterator
from typing import Any

from aiormq import Channel, Connection
from aiormq.exceptions import (
    AMQPError,
    AuthenticationError,
    ChannelAccessRefused,
    ChannelInvalidStateError,
    ChannelNotFoundEntity,
    ChannelPreconditionFailed,
    ConnectionClosed,
    ProbableAuthenticationError,
)
from pamqp import commands
from pamqp.base import Frame
from pamqp.frame import marshal
from yarl import URL

from ftgo_messaging.runtime.errors import TransientError
from ftgo_messaging.transports.port import BrokerRefuses
from ftgo_messaging.transports.tls import untrusted

HEARTBEAT_SECONDS = 3
"""RabbitMQ closes the connection of a client that it has heard nothing of for three times as long, and gives others
what that had in hand. An event loop that stands still for so long is not in order."""

_CONNECT_SECONDS = 10.0
_CLOSE_SECONDS = 2.0
_NOT_ALLOWED = 530

AWAY = (AMQPError, ChannelInvalidStateError, OSError, TimeoutError, EOFError, asyncio.IncompleteReadError)
"""What the client raises when the connection, or the channel in it, is gone."""

# What it logs as errors is raised, too, and told by whoever caught it.
logging.getLogger("aiormq").setLevel(logging.CRITICAL)


class _Connection(Connection):
    @staticmethod
    async def _rpc(request: Frame, writer: Any, frame_receiver: Any, wait_response: bool = True) -> Any:
        """The client says of a refused virtual host only that the answer was another one than expected."""
        if not isinstance(request, commands.Connection.Open):
            return await Connection._rpc(request, writer, frame_receiver, wait_response)
        writer.write(marshal(request, 0))
        _, _, frame = await frame_receiver.get_frame()
        if isinstance(frame, commands.Connection.Close):
            raise ConnectionClosed(frame.reply_code, frame.reply_text)
        return frame


async def connect(url: URL, client: str) -> Connection:
    """``client`` is the name that RabbitMQ's own tools show. Raises TransientError and BrokerRefuses."""
    connection = _Connection(url.update_query(name=client, heartbeat=str(HEARTBEAT_SECONDS)))
    try:
        async with asyncio.timeout(_CONNECT_SECONDS):
            await connection.connect()
    except (ProbableAuthenticationError, AuthenticationError) as error:
        raise BrokerRefuses(
            f"RabbitMQ refuses user {url.user or 'guest'}: {error}. Check the user and the password in FTGO_BROKER_URL."
        ) from None
    except ConnectionClosed as error:
        if error.args[:1] == (_NOT_ALLOWED,) and "limit" not in str(error):
            raise BrokerRefuses(
                f"RabbitMQ refuses the virtual host {connection.vhost}: {error.args[-1]}. Make it (rabbitmqctl "
                "add_vhost, set_permissions), or name another after the port in FTGO_BROKER_URL."
            ) from None
        raise _told(error) from error
    except AWAY as error:
        if refusal := untrusted(error, f"RabbitMQ at {url.host}:{url.port}"):
            raise refusal from error
        raise TransientError(f"RabbitMQ at {url.host}:{url.port} is away: {error!r}") from error
    except BaseException:  # cancelled: it may be there by now
        await disconnect(connection)
        raise
    return connection


async def channel_of(connection: Connection, *, confirms: bool = False) -> Channel:
    """A new AMQP channel. Of a connection that is gone the client says it with an error like no other."""
    try:
        found = await connection.channel(publisher_confirms=confirms)
    except RuntimeError as error:
        raise ConnectionClosed(0, str(error)) from error
    assert isinstance(found, Channel)  # noqa: S101 - its own class, and not only the abstract one
    return found


@contextlib.asynccontextmanager
async def connected(url: URL, client: str) -> AsyncIterator[Connection]:
    """A connection for a short time. What goes wrong with it is told as the port wants it."""
    connection = await connect(url, client)
    try:
        with telling():
            yield connection
    finally:
        await disconnect(connection)


async def disconnect(connection: Connection) -> None:
    """At once, or nearly: a server that does not answer is waited for a moment only."""
    with contextlib.suppress(*AWAY):
        await connection.close(ConnectionClosed(0, "closed by its owner"), timeout=_CLOSE_SECONDS)


@contextlib.contextmanager
def telling() -> Iterator[None]:
    """Raise what goes wrong with the client as the port wants it."""
    try:
        yield
    except AWAY as error:
        raise _told(error) from error
    except asyncio.CancelledError as error:
        # The client lets those who wait be cancelled when the server has been silent for too long.
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise TransientError("RabbitMQ is away: it was silent for too long") from error


def _told(error: BaseException) -> Exception:
    if isinstance(error, ChannelPreconditionFailed):
        return BrokerRefuses(
            f"RabbitMQ has otherwise what is to be declared: {error}. Delete it when it is empty, and start again."
        )
    if isinstance(error, ChannelAccessRefused):
        return BrokerRefuses(f"RabbitMQ does not allow it: {error}. Give the user permissions (set_permissions).")
    if isinstance(error, ChannelNotFoundEntity):
        return BrokerRefuses(f"In RabbitMQ something is missing: {error}. Declare the channels first.")
    return TransientError(f"RabbitMQ is away: {error!r}")
