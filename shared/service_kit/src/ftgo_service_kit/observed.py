"""A publisher that remembers how its last attempt ended, so that readiness can tell."""

from collections.abc import Sequence

from ftgo_messaging import Message
from ftgo_messaging.transports.port import Publisher, Sent


class ObservedPublisher:
    """Hands on to another publisher. ``state`` is "idle" before the first message, then "ok" or what went wrong."""

    def __init__(self, publisher: Publisher) -> None:
        self.state = "idle"
        self._publisher = publisher

    async def publish(self, messages: Sequence[Message]) -> Sequence[Sent]:
        try:
            sent = await self._publisher.publish(messages)
        except Exception as error:
            self.state = f"failing: {type(error).__name__}"
            raise
        failed = [how for how in sent if how is not Sent.CONFIRMED]
        self.state = f"failing: {failed[0].lower()}" if failed else "ok"
        return sent

    async def close(self) -> None:
        await self._publisher.close()
