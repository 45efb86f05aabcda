"""Encrypted connections to brokers: NATS' own TLS; before the others, whose programs here have none, or want files of
keys of their own making, stands an end of TLS, as stunnel is one. Certificates are made for this run."""

import asyncio
import contextlib
import datetime
import shutil
import ssl
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from ftgo_local.brokers.activemq import ActiveMQ
from ftgo_local.brokers.nats import Nats
from ftgo_local.brokers.rabbitmq import RabbitMQ
from ftgo_local.brokers.server import Server
from ftgo_local.brokers.valkey import Valkey
from ftgo_local.errors import PlatformError
from ftgo_local.ports import free_port
from ftgo_messaging.messages.channel import Channel
from ftgo_messaging.messages.ids import new_id
from ftgo_messaging.messages.message import Kind
from ftgo_messaging.runtime.errors import TransientError
from ftgo_messaging.testing.suite.judging import message
from ftgo_messaging.transports import transport_at
from ftgo_messaging.transports.port import BrokerRefuses, Sent

CERTIFICATE, KEY = "certificate.pem", "key.pem"


def certificate(folder: Path) -> None:
    """Signed by itself, for 127.0.0.1."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a broker of the tests")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / CERTIFICATE).write_bytes(made.public_bytes(Encoding.PEM))
    (folder / KEY).write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    for name_of_file in (CERTIFICATE, KEY):
        (folder / name_of_file).chmod(0o644)  # the server runs as another user, when root tests


@contextlib.asynccontextmanager
async def end_of_tls(folder: Path, behind: int) -> AsyncIterator[int]:
    """Decrypts what comes, and hands it to the server behind it."""

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while chunk := await reader.read(65536):
                writer.write(chunk)
                await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there = await asyncio.open_connection("127.0.0.1", behind)
        await asyncio.gather(copy(reader, there[1]), copy(there[0], writer))

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / CERTIFICATE, folder / KEY)
    listener = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    try:
        yield listener.sockets[0].getsockname()[1]
    finally:
        listener.close()


class EncryptedNats(Nats):
    def _settings(self) -> str:
        folder = self.directory.parent
        return f'{super()._settings()}tls {{ cert_file: "{folder / CERTIFICATE}", key_file: "{folder / KEY}" }}\n'


BROKERS = [
    pytest.param(EncryptedNats, "tls://{port}", id="nats"),
    pytest.param(EncryptedNats, "nats://{port}", id="nats demands it"),
    pytest.param(Valkey, "valkeys://{port}", id="valkey"),
    pytest.param(Valkey, "rediss://{port}", id="redis"),
    pytest.param(RabbitMQ, "amqps://guest:guest@{port}/", id="rabbitmq", marks=pytest.mark.slow),
    pytest.param(ActiveMQ, "stomp+ssl://{port}", id="activemq", marks=pytest.mark.slow),
]


@pytest.fixture
def place() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="ftgo-test-"))
    folder.chmod(0o755)
    certificate(folder)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@contextlib.asynccontextmanager
async def running(make: Callable[[Path, int], Server], folder: Path, url: str) -> AsyncIterator[str]:
    """The address under which it is reached with TLS."""
    server = make(folder / "server", free_port())
    try:
        await server.prepare()
    except PlatformError as error:
        pytest.skip(str(error))
    await server.start()
    try:
        if isinstance(server, Nats):
            yield url.format(port=f"127.0.0.1:{server.port}")
        else:
            async with end_of_tls(folder, server.port) as port:
                yield url.format(port=f"127.0.0.1:{port}")
    finally:
        await asyncio.to_thread(server.stop)


@pytest.mark.parametrize(("make", "url"), BROKERS)
async def test_messages_travel_encrypted(
    make: Callable[[Path, int], Server], url: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(make, place, url) as address:
        channel = Channel(f"tls.{new_id()}", Kind.COMMAND, key=str)
        readers = {channel.name: ["reader"]}
        with pytest.raises(BrokerRefuses, match=r"certificate of .* is not trusted .*SSL_CERT_FILE"):
            await transport_at(address).declare([channel], readers)

        monkeypatch.setenv("SSL_CERT_FILE", str(place / CERTIFICATE))
        transport = transport_at(address)
        assert await transport.declare([channel], readers) == [channel.name]
        publisher, subscription = transport.publisher("sender"), transport.subscription("reader", [channel])
        try:
            sent = [message(channel, f"key-{n}", n, body=b"x" * 10_000) for n in range(50)]
            assert set(await publisher.publish(sent)) == {Sent.CONFIRMED}
            await subscription.open()
            await subscription.assign([f"{channel.name}/{lane}" for lane in range(transport.lanes)])
            found = 0
            async with asyncio.timeout(20):
                while found < len(sent):
                    if (batch := await subscription.take(100, 1.0)) is not None:
                        found += len(batch.records)
                        subscription.settle(batch)
        finally:
            await subscription.close()
            await publisher.close()


@pytest.mark.parametrize(
    ("make", "url"),
    [
        pytest.param(Nats, "tls://{port}", id="nats"),
        pytest.param(Valkey, "valkeys://{port}", id="valkey"),
        pytest.param(RabbitMQ, "amqps://guest:guest@{port}/", id="rabbitmq", marks=pytest.mark.slow),
        pytest.param(ActiveMQ, "stomp+ssl://{port}", id="activemq", marks=pytest.mark.slow),
    ],
)
async def test_a_server_without_tls_is_no_place_for_a_secret(
    make: Callable[[Path, int], Server], url: str, place: Path
) -> None:
    server = make(place / "server", free_port())
    try:
        await server.prepare()
    except PlatformError as error:
        pytest.skip(str(error))
    await server.start()
    try:
        with pytest.raises((TransientError, BrokerRefuses)):
            await transport_at(url.format(port=f"127.0.0.1:{server.port}")).declare([], {})
    finally:
        await asyncio.to_thread(server.stop)
