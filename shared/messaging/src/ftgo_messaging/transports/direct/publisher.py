"""Posts messages to the consumers of their channels, and waits until these have committed them."""

import asyncio
import time
from collections import OrderedDict, defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple
from urllib.parse import quote

import msgspec
import structlog

from ftgo_messaging.messages.message import Message, size_of
from ftgo_messaging.runtime.errors import TransientError
from ftgo_messaging.transports.cloudevents import to_envelope
from ftgo_messaging.transports.direct.client import Client, Patience, Silent
from ftgo_messaging.transports.direct.registry import Address, Registry, RegistryFile
from ftgo_messaging.transports.direct.server import MOST_BYTES
from ftgo_messaging.transports.lanes import lane_of
from ftgo_messaging.transports.port import BrokerRefuses, Sent

log = structlog.get_logger("ftgo.direct")

MAX_BYTES = 1_000_000
"""Of a message; its body is a third longer in JSON."""
_POST_BYTES = 1_000_000
_POST_EVENTS = 500
_REMEMBERED = 10_000
"""Messages that some of their consumers have committed, and others not yet."""
_BUSY = 1.0
"""Seconds for which a receiver that has no room is asked again."""
_POST = Patience(2.0, 15.0)
_POST_TO_SUSPECT = Patience(1.0, 2.0)
"""Who was silent the last time: it is away behind its server, as without its database."""
_ASK = Patience(0.5, 0.5)
_LEFT_ALONE = 5.0
"""Seconds after silence. Waiting for it would hold up what goes to others."""
_REFUSALS = {400, 404, 405, 413, 415}


class _Ready(NamedTuple):
    place: int
    message: Message
    lane: str
    envelope: bytes


class DirectPublisher:
    """One publish at a time is meant; several do no harm, but their order is not known."""

    def __init__(self, registry: RegistryFile, client: str) -> None:
        self._registry = registry
        self._client = Client(client)
        self._routes: dict[str, dict[str, Address]] = defaultdict(dict)
        """Of each consumer: who reads the lane."""
        self._silent: dict[Address, float] = {}
        """Until when they are left alone. Until they answer a post they are suspect."""
        self._away: set[Address] = set()
        """It was told that these cannot be reached."""
        self._partly: OrderedDict[str, set[str]] = OrderedDict()
        """Who has committed a message already. Forgotten, it is repeated, which does no harm."""

    async def publish(self, messages: Sequence[Message]) -> Sequence[Sent]:
        await asyncio.sleep(0)  # whoever was cancelled sends nothing
        try:
            registry = self._registry.read()
        except BrokerRefuses as refusal:
            raise TransientError(str(refusal)) from refusal
        refused, held, posts = self._sort(registry, messages)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._to_consumer(registry, *who, ready)) for who, ready in posts.items()]
        for (consumer, _), ready, task in zip(posts, posts.values(), tasks, strict=True):
            outcomes = task.result()
            for each in ready:
                how = outcomes.get(each.place, Sent.UNKNOWN)
                if how is Sent.CONFIRMED:
                    self._partly.setdefault(each.message.id, set()).add(consumer)
                else:
                    (refused if how is Sent.REFUSED else held).add(each.place)
        sent: list[Sent] = []
        for place, message in enumerate(messages):
            sent.append(Sent.REFUSED if place in refused else Sent.UNKNOWN if place in held else Sent.CONFIRMED)
            if sent[-1] is Sent.CONFIRMED:
                self._partly.pop(message.id, None)
        while len(self._partly) > _REMEMBERED:
            self._partly.popitem(last=False)
        return sent

    def _sort(
        self, registry: Registry, messages: Sequence[Message]
    ) -> tuple[set[int], set[int], dict[tuple[str, str], list[_Ready]]]:
        """The places of those that are refused here, of those that would arrive before a refused one of their key, and
        what goes to each consumer of each channel."""
        refused: set[int] = set()
        held: set[int] = set()
        blocked: set[tuple[str, str]] = set()
        posts: dict[tuple[str, str], list[_Ready]] = defaultdict(list)
        for place, message in enumerate(messages):
            key = (message.channel, message.key)
            envelope = _envelope(message, registry)
            if envelope is None:
                refused.add(place)
                blocked.add(key)
            elif key in blocked:
                held.add(place)
            else:
                lane = f"{message.channel}/{lane_of(message.key, registry.lanes)}"
                for consumer in registry.channels[message.channel]:
                    if consumer not in self._partly.get(message.id, ()):
                        posts[consumer, message.channel].append(_Ready(place, message, lane, envelope))
        return refused, held, posts

    async def close(self) -> None:
        self._client.close()

    async def _to_consumer(
        self, registry: Registry, consumer: str, channel: str, ready: Sequence[_Ready]
    ) -> dict[int, Sent]:
        """What is known, by place."""
        routes = await self._readers(registry, consumer, {each.lane for each in ready})
        shares: dict[Address, list[_Ready]] = defaultdict(list)
        for each in ready:
            if each.lane in routes:
                shares[routes[each.lane]].append(each)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._to_member(a, consumer, channel, share)) for a, share in shares.items()]
        return {place: how for task in tasks for place, how in task.result().items()}

    async def _to_member(
        self, address: Address, consumer: str, channel: str, ready: Sequence[_Ready]
    ) -> dict[int, Sent]:
        """One body after the other: a lane is in one of these sequences only."""
        target = f"/{quote(consumer, safe='')}/{quote(channel, safe='')}"
        found: dict[int, Sent] = {}
        for post in _posts(ready):
            try:
                status, answer = await self._post(address, target, post)
            except TransientError as error:
                self._lost(consumer, address, error)
                break
            if status != 200:
                self._forget(consumer, address)
                if status in _REFUSALS:
                    log.warning(
                        "direct.refused", consumer=consumer, channel=channel, status=status, answer=answer[:200]
                    )
                    found |= dict.fromkeys((each.place for each in post), Sent.REFUSED)
                break
            self._silent.pop(address, None)
            committed = _places(answer)
            found |= {each.place: Sent.CONFIRMED for n, each in enumerate(post) if n in committed}
            if len(committed) < len(post):
                self._forget(consumer, address)
                break
        return found

    async def _post(self, address: Address, target: str, post: Sequence[_Ready]) -> tuple[int, bytes]:
        body = b"[" + b",".join(each.envelope for each in post) + b"]"
        until, pause = time.monotonic() + _BUSY, 0.02
        while True:
            patience = _POST_TO_SUSPECT if address in self._silent else _POST
            status, answer = await self._client.ask(address, "POST", target, body, patience)
            if status != 503 or time.monotonic() > until:
                return status, answer
            await asyncio.sleep(pause)
            pause = min(2 * pause, 0.2)

    async def _readers(self, registry: Registry, consumer: str, lanes: set[str]) -> dict[str, Address]:
        """Who reads these lanes, as far as that is known; asks the members if it is not."""
        routes = self._routes[consumer]
        listed = registry.addresses(consumer)
        if any(routes.get(lane) not in listed for lane in lanes):
            now = time.monotonic()
            addresses = [address for address in listed if self._silent.get(address, 0) < now]
            for claimed in await asyncio.gather(*(self._lanes_of(consumer, address) for address in addresses)):
                routes.update(claimed)
        return {lane: routes[lane] for lane in lanes if routes.get(lane) in listed}

    async def _lanes_of(self, consumer: str, address: Address) -> dict[str, Address]:
        try:
            status, answer = await self._client.ask(address, "GET", f"/{quote(consumer, safe='')}", b"", _ASK)
            if status == 200:
                self._away.discard(address)
                return dict.fromkeys(msgspec.json.decode(answer, type=list[str]), address)
        except TransientError as error:
            self._lost(consumer, address, error)
        except msgspec.DecodeError as error:
            log.warning("direct.no_member", host=address.host, port=address.port, error=repr(error))
        return {}

    def _lost(self, consumer: str, address: Address, error: TransientError) -> None:
        self._forget(consumer, address)
        if address not in self._away:
            self._away.add(address)
            log.info("direct.away", consumer=consumer, error=str(error))
        if isinstance(error, Silent):
            self._silent[address] = time.monotonic() + _LEFT_ALONE

    def _forget(self, consumer: str, address: Address) -> None:
        self._routes[consumer] = {lane: a for lane, a in self._routes[consumer].items() if a != address}


def _envelope(message: Message, registry: Registry) -> bytes | None:
    """None: it is refused."""
    if message.channel not in registry.channels or size_of(message) > MAX_BYTES:
        return None
    envelope = to_envelope(message)
    return envelope if len(envelope) + 2 <= MOST_BYTES else None


def _posts(ready: Sequence[_Ready]) -> Iterator[list[_Ready]]:
    """In their order, about 1 MB together."""
    post: list[_Ready] = []
    size = 0
    for each in ready:
        if post and (size + len(each.envelope) > _POST_BYTES or len(post) == _POST_EVENTS):
            yield post
            post, size = [], 0
        post.append(each)
        size += len(each.envelope) + 1
    if post:
        yield post


def _places(answer: bytes) -> set[int]:
    try:
        return set(msgspec.json.decode(answer, type=list[int]))
    except msgspec.DecodeError:
        return set()
