"""The channels at a broker: whether it can be reached, and what is missing there made. Works on any (`transports`)."""

import asyncio
from collections.abc import Collection, Mapping, Sequence

from ftgo_messaging.messages.channel import Channel
from ftgo_messaging.runtime.errors import is_transient
from ftgo_messaging.runtime.waiting import reason
from ftgo_messaging.transports import transport_at
from ftgo_messaging.transports.port import BrokerRefuses

from ftgo_local.brokers.kinds import shown
from ftgo_local.errors import PlatformError

PATIENCE_SECONDS = 20.0


async def declare(url: str, channels: Sequence[Channel], readers: Mapping[str, Collection[str]], cure: str) -> int:
    """Make what is missing, and say how many channels were. Raises PlatformError; ``cure``: of one that is away."""
    try:
        transport = transport_at(url)
    except (BrokerRefuses, ValueError) as error:
        raise PlatformError(str(error)) from error
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            return len(await transport.declare(channels, readers))
    except BrokerRefuses as error:
        raise PlatformError(str(error)) from error
    except Exception as error:
        if is_transient(error) or isinstance(error, TimeoutError):
            raise PlatformError(f"The broker at {shown(url)} cannot be reached: {reason(error)}.", cure) from error
        raise
    finally:
        await transport.close()
