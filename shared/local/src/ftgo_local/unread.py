"""What stands unread at a broker that is left: asked again and again, and told in words."""

import asyncio
from collections.abc import Collection, Mapping

from ftgo_messaging.runtime.errors import is_transient
from ftgo_messaging.runtime.waiting import reason
from ftgo_messaging.transports import transport_at
from ftgo_messaging.transports.port import BrokerRefuses

from ftgo_local.errors import PlatformError

PATIENCE_SECONDS = 10.0
_SHOWN = 3


class Unread:
    """Of these channels there, by their names with the consumers of each. ``aclose`` it in the end."""

    def __init__(self, title: str, url: str, readers: Mapping[str, Collection[str]]) -> None:
        self._title = title
        self._transport = transport_at(url)
        self._readers = readers

    async def left(self) -> str:
        """What is left, or why that is not known just now; empty when all is read. Raises PlatformError for a broker
        that cannot tell."""
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                return told(self._title, await self._transport.unread(self._readers))
        except BrokerRefuses as error:
            raise PlatformError(
                f"{self._title} cannot tell what is left to be read there: {error}",
                "`ftgo down` and `ftgo up --broker NAME` change the broker, with all that this says.",
            ) from error
        except Exception as error:
            if is_transient(error) or isinstance(error, TimeoutError):
                return f"{self._title} cannot be asked: {reason(error)}"
            raise

    async def aclose(self) -> None:
        await self._transport.close()


def told(title: str, unread: Mapping[str, int | None]) -> str:
    """In words, the lanes with most of it first; empty when nothing is left."""
    unknown = [lane for lane, count in unread.items() if count is None]
    left = {lane: count for lane, count in unread.items() if count}
    if not left and not unknown:
        return ""
    most = sorted(left, key=lambda lane: -left[lane])[:_SHOWN]
    examples = ", ".join(f"{lane}: {left[lane]}" for lane in most) + (", ..." if len(left) > _SHOWN else "")
    parts = [f"{sum(left.values())} unread in {len(left)} lanes ({examples})"] if left else []
    parts += [f"{len(unknown)} lanes of which it is not known ({', '.join(unknown[:_SHOWN])})"] if unknown else []
    return f"{title}: {', '.join(parts)}"
