"""How much the queues of some consumers still hold: browsed, for STOMP has no count. A browser is shown what was given
to a consumer and not acknowledged as well."""

import asyncio
from collections import Counter
from collections.abc import Collection, Mapping

from stompman import MessageFrame, SubscribeFrame, UnsubscribeFrame

from ftgo_messaging.runtime.errors import TransientError
from ftgo_messaging.transports.activemq.link import ANSWER_SECONDS, Link
from ftgo_messaging.transports.activemq.names import MARKER, markers, queue
from ftgo_messaging.transports.lanes import names_of


async def unread(link: Link, readers: Mapping[str, Collection[str]], lanes: int) -> dict[str, int | None]:
    """For each lane of these channels, as many as the broker shows (its ``maxBrowsePageSize``, 400). Raises
    TransientError and BrokerRefuses."""
    found: dict[str, int | None] = dict.fromkeys(names_of(readers, lanes), 0)
    for channel, consumers in readers.items():
        _, known = await markers(link, channel)
        places = {f"{channel}/{lane}": lane for lane in range(lanes)}
        for consumer in known & set(consumers):
            counts = await _browse(link, {name: queue(consumer, channel, lane) for name, lane in places.items()})
            for name in places:
                found[name] = (found[name] or 0) + counts[name]
    return found


async def _browse(link: Link, queues: Mapping[str, str]) -> Counter[str]:
    """How many messages stand in each of these queues, without their markers."""
    names = {f"b{next(link.numbers)}": name for name in queues}
    waiting = set(names)
    found: Counter[str] = Counter()
    all_seen = asyncio.Event()

    async def note(frame: MessageFrame) -> None:
        subscription = frame.headers["subscription"]
        if frame.headers.get("browser") == "end":
            waiting.discard(subscription)
            if not waiting:
                all_seen.set()
        elif subscription in names and (frame.body or MARKER not in frame.headers):
            found[names[subscription]] += 1

    before, link.on_message = link.on_message, note
    try:
        how = {"ack": "auto", "browser": "true"}
        asked = [
            link.ask(SubscribeFrame, {"id": number, "destination": queues[name], **how})
            for number, name in names.items()
        ]
        await link.sure(*asked)
        async with asyncio.timeout(ANSWER_SECONDS):
            await all_seen.wait()
        await link.sure(*[link.ask(UnsubscribeFrame, {"id": number}) for number in names])
    except TimeoutError:
        raise TransientError(f"ActiveMQ does not show its queues: {link.why or 'no answer'}") from None
    finally:
        link.on_message = before
    return found
