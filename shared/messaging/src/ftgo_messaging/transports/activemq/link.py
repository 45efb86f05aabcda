"""One connection to ActiveMQ, made of stompman's frames and its parser.

Not of stompman's Client. It connects and subscribes again by itself, so an outage would be hidden and what is in hand
would be given twice; and it drops the ERROR frame that tells why a broker refuses a connection.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from stompman import (
    ConnectedFrame,
    ConnectFrame,
    DisconnectFrame,
    ErrorFrame,
    MessageFrame,
    ReceiptFrame,
    dump_frame,
)
from stompman.frames import AnyClientFrame, AnyServerFrame

from ftgo_messaging.runtime.errors import TransientError
from ftgo_messaging.transports.activemq.frames import Parser
from ftgo_messaging.transports.port import BrokerRefuses, Sent
from ftgo_messaging.transports.tls import trusting, untrusted

_CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 20.0
"""For a receipt. A broker whose memory or disk is full lets its senders wait."""
_CLOSE_SECONDS = 2.0
_PROMISE_MS = 4000
"""The broker drops a connection from which nothing came for about two and a half times that: a member that stands still
loses its lanes so."""
_BEAT_SECONDS = 1.3
_SILENCE_SECONDS = 8.0
_CHUNK = 64 * 1024
_REFUSALS = ("password", "SecurityException", "LoginException", "not authorized")


@dataclass(frozen=True, slots=True)
class Address:
    host: str
    port: int
    user: str
    password: str = field(repr=False)
    tls: bool = False


async def _ignore(frame: MessageFrame) -> None:
    pass


class Link:
    """From ``connect`` until ``lost`` is set; then ``why`` says the reason, and a new one is needed.

    ``on_message`` is awaited before anything later is read: by that a receiver holds the broker back."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.lost = asyncio.Event()
        self.why = ""
        self.said = ""
        self.on_message: Callable[[MessageFrame], Awaitable[None]] = _ignore
        self.on_lost: Callable[[], None] = lambda: None
        self.held_back = False
        self.numbers = count(1)
        self._reader = reader
        self._writer = writer
        self._hello: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._receipts: dict[str, asyncio.Future[Sent]] = {}
        self._heard = time.monotonic()
        self._tasks = [asyncio.create_task(self._read()), asyncio.create_task(self._beat())]

    @classmethod
    async def connect(cls, address: Address) -> "Link":
        """Raises TransientError when nobody answers, and BrokerRefuses."""
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                secure = trusting() if address.tls else None
                reader, writer = await asyncio.open_connection(address.host, address.port, ssl=secure)
                link = cls(reader, writer)
                try:
                    await link._greet(address)
                except BaseException:
                    link.abort()
                    raise
        except OSError as error:  # TimeoutError is one
            if refusal := untrusted(error, f"ActiveMQ at {address.host}:{address.port}"):
                raise refusal from error
            raise TransientError(f"ActiveMQ is away at {address.host}:{address.port}: {error!r}") from error
        return link

    async def _greet(self, address: Address) -> None:
        headers: Any = {"accept-version": "1.2", "host": address.host}
        headers["heart-beat"] = f"{_PROMISE_MS},{int(_BEAT_SECONDS * 1000)}"
        if address.user:
            headers |= {"login": address.user, "passcode": address.password}
        self.write(ConnectFrame(headers=headers))
        refusal = await self._hello
        if any(word in refusal for word in _REFUSALS):
            raise BrokerRefuses(
                f"ActiveMQ at {address.host}:{address.port} refuses the user {address.user!r} ({refusal}): correct "
                "user and password in FTGO_BROKER_URL."
            )
        if refusal:
            raise TransientError(f"ActiveMQ refuses the connection: {refusal}")

    def write(self, frame: AnyClientFrame | bytes) -> None:
        """Never waits and never raises: who wants to know asks for a receipt."""
        if not self.lost.is_set():
            self._writer.write(frame if isinstance(frame, bytes) else dump_frame(frame))

    def receipt(self) -> tuple[str, asyncio.Future[Sent]]:
        """For one frame. UNKNOWN: the connection was lost before the broker's answer came."""
        name, answer = f"r{next(self.numbers)}", asyncio.get_running_loop().create_future()
        if self.lost.is_set():
            answer.set_result(Sent.UNKNOWN)
        else:
            self._receipts[name] = answer
        return name, answer

    def ask(self, frame: Callable[..., AnyClientFrame], headers: dict[str, str], **body: bytes) -> asyncio.Future[Sent]:
        """Write a frame with a receipt."""
        name, answer = self.receipt()
        self.write(frame(headers={**headers, "receipt": name}, **body))
        return answer

    async def drained(self) -> None:
        """Wait until the broker has taken most of what was written."""
        with suppress(OSError):
            await self._writer.drain()

    async def sure(self, *answers: asyncio.Future[Sent]) -> None:
        """Wait for these receipts. Raises TransientError when one does not come, and BrokerRefuses."""
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                found = [await answer for answer in answers]
        except TimeoutError:
            self.abort(f"no answer within {ANSWER_SECONDS:.0f} s")
            raise TransientError(f"ActiveMQ is away: {self.why}") from None
        if Sent.REFUSED in found:
            raise BrokerRefuses(f"ActiveMQ refuses: {self.said}. Its log tells more; the user's rights may be missing.")
        if Sent.UNKNOWN in found:
            raise TransientError(f"ActiveMQ is away: {self.why}")

    async def close(self) -> None:
        """In order: what was written arrives. Never raises."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_SECONDS):
                await self.ask(DisconnectFrame, {})
        self.abort("closed")

    def abort(self, why: str = "given up") -> None:
        """At once: what is not written yet is never sent."""
        if self.lost.is_set():
            return
        self.why = why
        self.lost.set()
        self._writer.transport.abort()
        for task in self._tasks:
            if task is not asyncio.current_task():
                task.cancel()
        if not self._hello.done():
            self._hello.set_result(why)
        for answer in self._receipts.values():
            if not answer.done():
                answer.set_result(Sent.UNKNOWN)
        self._receipts.clear()
        self.on_lost()

    async def _read(self) -> None:
        parser = Parser()
        why = "it closed the connection"
        try:
            while chunk := await self._reader.read(_CHUNK):
                self._heard = time.monotonic()
                for frame in parser.parse_frames_from_chunk(chunk):
                    await self._take(frame)
        except Exception as error:
            why = repr(error)
        self.abort(f"{why} ({self.said})" if self.said else why)

    async def _take(self, frame: AnyServerFrame | AnyClientFrame) -> None:
        match frame:
            case MessageFrame():
                await self.on_message(frame)
                self._heard = time.monotonic()
            case ReceiptFrame():
                self._answer(frame.headers["receipt-id"], Sent.CONFIRMED)
            case ErrorFrame():
                self.said = frame.headers.get("message", "") or frame.body[:200].decode(errors="replace")
                if not self._hello.done():
                    self._hello.set_result(self.said)
                self._answer(frame.headers.get("receipt-id", ""), Sent.REFUSED)
            case ConnectedFrame() if not self._hello.done():
                self._hello.set_result("")

    def _answer(self, receipt: str, sent: Sent) -> None:
        answer = self._receipts.pop(receipt, None)
        if answer is not None and not answer.done():
            answer.set_result(sent)

    async def _beat(self) -> None:
        while not self.lost.is_set():
            await asyncio.sleep(_BEAT_SECONDS)
            self._writer.write(b"\n")
            # Nothing is read while the receiver holds the broker back; then the silence is ours.
            if not self.held_back and time.monotonic() - self._heard > _SILENCE_SECONDS:
                self.abort(f"silent for {_SILENCE_SECONDS:.0f} s")
