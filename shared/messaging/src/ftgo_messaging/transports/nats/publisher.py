"""Publishes to JetStream: all at once, in order, each with an answer of its own."""

import asyncio
import json
from collections.abc import Sequence

import nats.errors
import structlog
from nats.aio.msg import Msg

from ftgo_messaging.messages.message import Message
from ftgo_messaging.transports.nats.connection import Address, Connection
from ftgo_messaging.transports.nats.wire import headers_of, size_of, subject_for
from ftgo_messaging.transports.port import Sent

log = structlog.get_logger("ftgo.nats")

MAX_BYTES = 1_000_000
"""NATS takes 1,048,576 without special settings."""
_TOO_MANY = 429
_ANSWER_SECONDS = 20.0


class _Round:
    """What one call of ``publish`` waits for."""

    def __init__(self, count: int) -> None:
        self.sent = [Sent.UNKNOWN] * count
        self.missing: set[int] = set()
        self.errors: list[str] = []
        self.answered = asyncio.Event()

    def refuse(self, i: int, why: str) -> None:
        self.sent[i] = Sent.REFUSED
        self.errors.append(why)


class NatsPublisher:
    """A message is confirmed when its stream has stored it, or when no consumer of its channel is declared.

    No ``Nats-Msg-Id``: JetStream would confirm a repeated message without storing it, so one that was refused and its
    successor that was not would stay in the wrong order when both are sent again. The receivers know ids themselves."""

    def __init__(self, address: Address, client: str, answer_seconds: float = _ANSWER_SECONDS) -> None:
        self._address, self._name = address, client
        self._answer_seconds = answer_seconds
        self._link: Connection | None = None
        self._inbox = ""
        self._number = 0
        self._round = _Round(0)

    async def publish(self, messages: Sequence[Message]) -> Sequence[Sent]:
        link = await self._connected()
        self._number += 1
        current = self._round = _Round(len(messages))
        try:
            await link.unless_lost(self._send(link, messages, current), self._answer_seconds)
        except (OSError, nats.errors.Error, TimeoutError) as error:
            current.errors.append(repr(error))
        if current.missing:
            # What it has not sent yet must not be sent after what comes next.
            await self._drop()
        if current.errors:
            found = current.errors
            log.warning("publish.failed", failed=len(found) + len(current.missing), of=len(messages), error=found[0])
        return current.sent

    async def close(self) -> None:
        if self._link is not None and self._link.up:
            await self._link.flush()
        await self._drop()

    async def _connected(self) -> Connection:
        if self._link is None or not self._link.up:
            await self._drop()
            link = await Connection(self._address, self._name).connect()
            try:
                self._inbox = link.client.new_inbox()
                await link.client.subscribe(f"{self._inbox}.*.*", cb=self._answered)
            except BaseException:
                await link.close()
                raise
            self._link = link
        return self._link

    async def _drop(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            await link.close()

    async def _send(self, link: Connection, messages: Sequence[Message], current: _Round) -> None:
        most = min(MAX_BYTES, link.client.max_payload)
        for i, message in enumerate(messages):
            headers = headers_of(message)
            if (size := size_of(headers, message.body)) > most:
                current.refuse(i, f"{size} bytes, at most {most}")
                continue
            subject, reply = subject_for(message, self._address.lanes), f"{self._inbox}.{self._number}.{i}"
            try:
                current.missing.add(i)
                await link.client.publish(subject, message.body, reply=reply, headers=headers)
            except (nats.errors.BadHeaderError, nats.errors.BadSubjectError) as error:
                current.missing.discard(i)
                current.refuse(i, f"NATS cannot carry it: {error!r}")
        while current.missing:
            current.answered.clear()
            await current.answered.wait()

    async def _answered(self, answer: Msg) -> None:
        number, i = (int(part) for part in answer.subject.rsplit(".", 2)[1:])
        current = self._round
        if number != self._number or i not in current.missing:
            return  # of a call that was cancelled
        current.missing.remove(i)
        if answer.data:
            error = json.loads(answer.data).get("error")
            if error is None:
                current.sent[i] = Sent.CONFIRMED
            elif error.get("code") == _TOO_MANY:
                current.errors.append(error["description"])
            else:
                current.refuse(i, error["description"])
        else:
            current.refuse(i, f"no stream takes {answer.subject}")
        if not current.missing:
            current.answered.set()
