"""A member of a consumer: takes what senders post, and answers when it is settled."""

import asyncio
import contextlib
import errno
import hashlib
import socket
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple
from urllib.parse import quote

import msgspec

from ftgo_messaging.runtime.errors import TransientError
from ftgo_messaging.transports.cloudevents import from_envelope
from ftgo_messaging.transports.direct.registry import RegistryFile
from ftgo_messaging.transports.direct.server import Answer, Request, Server
from ftgo_messaging.transports.lanes import lane_of
from ftgo_messaging.transports.port import Batch, BrokerRefuses, Record

BATCH_TYPE = "application/cloudevents-batch+json"
MOST_EVENTS = 1000
"""In a body."""
_WAITING_BYTES = 4_000_000
"""With so many in memory no other body is accepted."""
_BATCH_BYTES = 1_000_000
_TELL_EVERY = 0.5
"""Seconds after which senders are told that their messages are not forgotten."""
_NOT_HERE = {errno.EADDRINUSE, errno.EADDRNOTAVAIL}


class _Post:
    """A body that was posted: answered when each of its records is settled or given up."""

    def __init__(self, count: int) -> None:
        self.waiting = count
        self.committed: list[int] = []
        self.gone = False
        self.answered = asyncio.get_running_loop().create_future()

    def over(self, place: int, committed: bool) -> None:
        if committed:
            self.committed.append(place)
        self.waiting -= 1
        if not self.waiting and not self.answered.done():
            self.answered.set_result(None)


class _Item(NamedTuple):
    record: Record
    post: _Post
    place: int
    size: int


class DirectSubscription:
    """What is in hand stands first in its lanes still. What a sender that is gone has posted, and nobody has taken, is
    dropped: nobody would hear the answer, and the sender posts it again."""

    def __init__(self, registry: RegistryFile, consumer: str, channels: Sequence[str]) -> None:
        self._registry = registry
        self._consumer = consumer
        self._channels = {f"/{quote(consumer, safe='')}/{quote(channel, safe='')}": channel for channel in channels}
        self._server: Server | None = None
        self._lanes: dict[str, deque[_Item]] = {}
        self._bytes = 0
        self._in_hand = False
        self._arrived = asyncio.Event()

    # -- life ----------------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        if self._server is not None:
            return
        registry = self._registry.read()
        for channel in self._channels.values():
            if self._consumer not in registry.channels.get(channel, ()):
                raise BrokerRefuses(
                    f"In the registry {self._registry.path} the channel {channel} has no reader {self._consumer}: "
                    f"declare it first."
                )
        addresses = registry.addresses(self._consumer)
        server = Server(self._answer)
        for address in addresses:
            try:
                await server.listen(address)
            except socket.gaierror:
                continue
            except OSError as error:
                if error.errno in _NOT_HERE:
                    continue
                raise BrokerRefuses(
                    f"{self._consumer} cannot listen on {address.host}:{address.port}: {error}."
                ) from error
            self._server = server
            return
        where = ", ".join(f"{host}:{port}" for host, port in addresses) or "none"
        raise BrokerRefuses(
            f"No address of {self._consumer} in the registry {self._registry.path} is free on this host ({where}): "
            f"other processes listen there, perhaps members of the same consumer. Add one for each member."
        )

    async def close(self) -> None:
        server, self._server = self._server, None
        self._give_up(list(self._lanes))
        if server is not None:
            await server.stop()

    async def assign(self, lanes: Collection[str]) -> None:
        self._give_up([lane for lane in self._lanes if lane not in lanes])
        for lane in lanes:
            self._lanes.setdefault(lane, deque())

    def _give_up(self, lanes: Sequence[str]) -> None:
        """Their senders hear what is committed, and what is not."""
        for lane in lanes:
            for item in self._lanes.pop(lane):
                self._bytes -= item.size
                item.post.over(item.place, committed=False)

    # -- what the runner asks ------------------------------------------------------------------------------------------

    async def take(self, most: int, wait: float) -> Batch | None:
        self._in_hand = False
        if self._server is None:
            raise TransientError("The subscription is not open.")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait):
                while True:
                    self._arrived.clear()
                    if items := self._first(most):
                        self._in_hand = True
                        return Batch([item.record for item in items], items)
                    await self._arrived.wait()
        return None

    def _first(self, most: int) -> list[_Item]:
        """The first of the lanes, in turn: with the next batch other lanes come first."""
        found: list[_Item] = []
        size = 0
        for lane, queue in list(self._lanes.items()):
            self._drop(queue)
            for item in queue:
                size += item.size
                if found and (len(found) == most or size > _BATCH_BYTES):
                    return found
                if item is queue[0]:
                    self._lanes[lane] = self._lanes.pop(lane)
                found.append(item)
        return found

    def _drop(self, queue: deque[_Item]) -> None:
        """What came from senders that are gone. They send nothing later of the same key before it is committed."""
        if any(item.post.gone for item in queue):
            kept = [item for item in queue if not item.post.gone]
            self._bytes -= sum(item.size for item in queue) - sum(item.size for item in kept)
            queue.clear()
            queue.extend(kept)

    def settle(self, batch: Batch) -> None:
        self._in_hand = False
        items: list[_Item] = batch.receipt  # type: ignore[assignment]
        for item in items:
            queue = self._lanes.get(item.record.lane)
            if queue and queue[0] is item:  # otherwise the lane was given up
                queue.popleft()
                self._bytes -= item.size
                item.post.over(item.place, committed=True)

    async def release(self, batch: Batch) -> None:
        """Its records stand first in their lanes still; their lanes are the next ones, too."""
        self._in_hand = False
        lanes = {record.lane for record in batch.records}
        self._lanes = dict(sorted(self._lanes.items(), key=lambda entry: entry[0] not in lanes))

    async def extend(self, batch: Batch) -> None:
        """While a batch is in hand all senders are told so anyway."""

    async def backlog(self) -> Mapping[str, int | None]:
        """What waits here. What waits in the senders' outboxes is told by their relays."""
        return {lane: sum(not item.post.gone for item in queue) for lane, queue in self._lanes.items()}

    # -- what senders ask ----------------------------------------------------------------------------------------------

    async def _answer(self, request: Request) -> Answer:
        """200 with the places of those in the body that are committed; it comes early when lanes are given up. Before
        that 4xx and 503: nothing of the body was taken."""
        if request.method == "GET" and request.target == f"/{quote(self._consumer, safe='')}":
            return Answer(200, msgspec.json.encode(list(self._lanes)))
        channel = self._channels.get(request.target)
        if channel is None:
            return Answer(404, f"this is {self._consumer}, which does not read that\n".encode())
        if request.method != "POST":
            return Answer(405, b"POST it\n")
        if request.content_type.partition(";")[0].strip().lower() != BATCH_TYPE:
            return Answer(415, f"it has to be {BATCH_TYPE}\n".encode())
        try:
            envelopes = msgspec.json.decode(request.body, type=list[msgspec.Raw])
            if len(envelopes) > MOST_EVENTS:
                return Answer(413, f"at most {MOST_EVENTS} events\n".encode())
            records = [record_of(channel, bytes(envelope), self._registry.lanes) for envelope in envelopes]
        except (msgspec.DecodeError, ValueError, RecursionError) as error:
            return Answer(400, f"it is no list of CloudEvents in JSON: {error!r}\n".encode(errors="replace"))
        if self._bytes > _WAITING_BYTES:
            return Answer(503, b"too much waits here\n", retry_after=1)
        if self._server is None or any(record.lane not in self._lanes for record in records):
            return Answer(421, b"another member reads these lanes, or will soon\n")
        return await self._committed(request, records, [len(envelope) for envelope in map(bytes, envelopes)])

    async def _committed(self, request: Request, records: Sequence[Record], sizes: Sequence[int]) -> Answer:
        if not records:
            return Answer(200, b"[]")
        post = _Post(len(records))
        for place, (record, size) in enumerate(zip(records, sizes, strict=True)):
            self._lanes[record.lane].append(_Item(record, post, place, size))
            self._bytes += size
        self._arrived.set()
        try:
            while not (await asyncio.wait({post.answered}, timeout=_TELL_EVERY))[0]:
                # One that fails and is tried again says nothing: its senders have others to send to.
                if self._in_hand:
                    request.at_work()
        finally:
            post.gone = not post.answered.done()
        return Answer(200, msgspec.json.encode(post.committed))


def record_of(channel: str, envelope: bytes, lanes: int) -> Record:
    """``origin`` is made of the content, as there is no place where it would stand: the same for each repetition, and
    for two messages without ids that say the same."""
    key, headers, body, defect = from_envelope(envelope)
    lane = 0 if key is None else lane_of(key.decode(), lanes)
    place = hashlib.blake2b(envelope, digest_size=12).hexdigest()
    return Record(channel, key, headers, body, f"{channel}/{lane}@{place}", defect)
