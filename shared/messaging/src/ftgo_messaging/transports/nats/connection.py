"""One connection to a NATS server, up or lost, never made anew: nats-py's own reconnecting keeps what was to be
sent and sends it later, when the publisher has long said that it is unknown."""

import asyncio
import json
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import parse_qs, unquote, urlsplit

import nats.errors
import structlog
from nats.aio.client import Client

from ftgo_messaging.runtime.errors import TransientError
from ftgo_messaging.transports.lanes import LANES
from ftgo_messaging.transports.port import BrokerRefuses
from ftgo_messaging.transports.tls import trusting, untrusted

log = structlog.get_logger("ftgo.nats")

_SECONDS = 5.0
_MIB = 1024 * 1024
OLDEST = (2, 14)
"""The first server that has ``CONSUMER.RESET``."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Address:
    """``nats://user:password@host:port/?lanes=12&channel_mib=256``; the latter bounds what a channel keeps. ``tls://``
    is encrypted, and so is ``nats://`` to a server that demands it."""

    server: str
    user: str | None
    password: str | None
    lanes: int
    channel_bytes: int

    @classmethod
    def of(cls, url: str) -> "Address":
        """Raises BrokerRefuses: it is no such URL."""
        try:
            parts = urlsplit(url)
            options = {n: v[-1] for n, v in parse_qs(parts.query, strict_parsing=bool(parts.query)).items()}
            lanes, mib = int(options.pop("lanes", LANES)), int(options.pop("channel_mib", 256))
            port = parts.port or 4222
            if options or not parts.hostname or min(lanes, mib) < 1:
                raise ValueError
        except ValueError:
            raise BrokerRefuses(
                "The broker's URL should look like nats://user:password@host:4222/?lanes=12&channel_mib=256."
            ) from None
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        user, password = (None if text is None else unquote(text) for text in (parts.username, parts.password))
        scheme = "tls" if parts.scheme == "tls" else "nats"
        return cls(f"{scheme}://{host}:{port}", user, password, lanes, mib * _MIB)


class Refused(Exception):
    """JetStream's answer is an error."""

    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(error.get("description", ""))
        self.code = error.get("err_code")


class _Headers(dict[str, str]):
    raw = b""


class _Client(Client):
    def __init__(self, lost: Callable[[], object], secure: bool) -> None:
        super().__init__()
        self._lost = lost
        self._secure = secure

    async def _close(self, status: int, do_cbs: bool = True) -> None:
        """Whatever ends the connection comes here. It may fail when it sends the rest: then its callback is not called,
        and its tasks do not end."""
        self._lost()
        try:
            await super()._close(status, do_cbs)
        finally:
            for inbox in self._subs.values():
                inbox._stop_processing()
            self._subs.clear()

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:
        """nats-py goes on without TLS, and sends the password, where a server does not demand it."""
        if self._secure and initial_connection and not info.get("tls_required"):
            if not info.get("tls_available"):
                raise BrokerRefuses(
                    "NATS has no TLS there, and nothing was sent: give the server a certificate, or begin the broker's "
                    "URL with nats://, if the way there is safe."
                )
            info["tls_required"] = True
        await super()._process_info(info, initial_connection)

    async def _process_headers(self, headers: bytes | None) -> dict[str, str] | None:
        """As they came, beside what nats-py makes of them: that drops what it cannot read, and an exception here would
        end its reader in silence, with the connection still open."""
        if not headers:
            return None
        found = _Headers()
        with suppress(Exception):
            found.update(await super()._process_headers(headers) or {})
        found.raw = headers
        return found


class Connection:
    """``lost`` is told at once when it is gone; what waits for an answer then raises TransientError."""

    def __init__(self, address: Address, name: str, lost: Callable[[], object] = lambda: None) -> None:
        self._address, self._name = address, name
        self._on_loss = lost
        self._lost = asyncio.Event()
        self._secure = address.server.startswith("tls://")
        self.client = _Client(self._lose, self._secure)

    @property
    def up(self) -> bool:
        return bool(self.client.is_connected)

    async def connect(self) -> "Connection":
        """Raises TransientError and BrokerRefuses; then nothing is left of it."""
        try:
            async with asyncio.timeout(_SECONDS):
                await self.client.connect(
                    self._address.server,
                    name=self._name,
                    user=self._address.user,
                    password=self._address.password,
                    # 20 ms of work; without it nats-py makes the same when the server demands TLS.
                    tls=trusting() if self._secure else None,
                    allow_reconnect=False,
                    max_reconnect_attempts=1,
                    reconnect_time_wait=0,
                    # One that died without a word is noticed within 30 s.
                    ping_interval=10,
                    error_cb=self._tell,
                )
        except BaseException as error:
            await self.close()
            if "authorization" in str(error).lower():
                raise BrokerRefuses(
                    f"NATS at {self._address.server} refuses the user {self._address.user or '(none)'}: "
                    "set user and password in the broker's URL."
                ) from None
            if refusal := untrusted(error, f"NATS at {self._address.server}"):
                raise refusal from error
            if isinstance(error, OSError | nats.errors.Error | TimeoutError):
                raise TransientError(f"NATS at {self._address.server} is away: {error!r}") from error
            raise
        version = self.client.connected_server_version
        if (version.major, version.minor) < OLDEST:
            await self.close()
            there = f"{version.major}.{version.minor}.{version.patch}"
            raise BrokerRefuses(
                f"NATS at {self._address.server} is {there}; {OLDEST[0]}.{OLDEST[1]} or later is needed, to give "
                "what a member had in hand to its successor: run a newer server."
            )
        return self

    async def api(self, subject: str, **body: object) -> dict[str, Any]:
        """Ask JetStream. Raises Refused with its error, TransientError, and BrokerRefuses when there is none."""
        try:
            question = json.dumps(body).encode() if body else b""
            answer = await self.unless_lost(self.client.request(f"$JS.API.{subject}", question, timeout=_SECONDS))
        except nats.errors.NoRespondersError:
            raise BrokerRefuses(
                f"NATS at {self._address.server} has no JetStream, or is older than 2.14: start such a one with -js."
            ) from None
        except (OSError, nats.errors.Error, TimeoutError) as error:
            raise TransientError(f"NATS does not answer to {subject}: {error!r}") from error
        found: dict[str, Any] = json.loads(answer.data)
        if "error" in found:
            raise Refused(found["error"])
        return found

    async def unless_lost(self, work: Coroutine[Any, Any, T], seconds: float = 2 * _SECONDS) -> T:
        """nats-py waits for ever, or for its time-out, when the connection is lost meanwhile. Raises what the work
        raises, ConnectionClosedError and TimeoutError."""
        task, lost = asyncio.ensure_future(work), asyncio.ensure_future(self._lost.wait())
        task.add_done_callback(lambda done: done.cancelled() or done.exception())  # somebody has asked for it
        try:
            await asyncio.wait({task, lost}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
            raise nats.errors.ConnectionClosedError if self._lost.is_set() else TimeoutError
        finally:
            task.cancel()
            lost.cancel()

    async def flush(self) -> None:
        """Until the server has got everything, 2 s at most. Never raises."""
        with suppress(OSError, nats.errors.Error, TimeoutError):
            await self.unless_lost(self.client.flush(timeout=2), 2)

    async def close(self) -> None:
        """At once: what is not sent is not sent later. Never raises."""
        writer = getattr(getattr(self.client, "_transport", None), "_io_writer", None)
        if writer is not None:
            writer.transport.abort()
        with suppress(OSError, nats.errors.Error, TimeoutError, AttributeError):
            async with asyncio.timeout(2):
                await self.client.close()

    def _lose(self) -> None:
        self._lost.set()
        self._on_loss()

    async def _tell(self, error: Exception) -> None:
        log.debug("nats.connection", error=repr(error))
