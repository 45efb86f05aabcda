"""The registry: a JSON file with the addresses of each consumer, and the consumers of each channel."""

import contextlib
import fcntl
import os
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit

import msgspec

from ftgo_messaging.transports.lanes import LANES
from ftgo_messaging.transports.port import BrokerRefuses

_FORM = "http+static:///PATH/registry.json, with ?lanes=12 behind it if need be"


class Address(NamedTuple):
    """Where a member listens."""

    host: str
    port: int


class Registry(msgspec.Struct, kw_only=True):
    """What the file says."""

    lanes: int = LANES
    consumers: dict[str, list[str]] = {}
    channels: dict[str, list[str]] = {}

    def addresses(self, consumer: str) -> list[Address]:
        """Raises BrokerRefuses for what is no address."""
        return [address_of(url) for url in self.consumers.get(consumer, ())]


def address_of(url: str) -> Address:
    """Of ``http://HOST:PORT``. Raises BrokerRefuses for anything else."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host or not port or parts.scheme != "http" or parts.path.strip("/") or parts.query or parts.username:
        raise BrokerRefuses(f"{url!r} in the registry is no address of a consumer: it has the form http://HOST:PORT.")
    return Address(host, port)


class RegistryFile:
    """Read again whenever the file is another one."""

    def __init__(self, path: Path, lanes: int) -> None:
        self.path = path
        self.lanes = lanes
        self._seen: tuple[int, int, int] | None = None
        self._registry = Registry()

    def read(self) -> Registry:
        """Raises BrokerRefuses when it is not there, or no registry, or has another number of lanes."""
        try:
            found = self.path.stat()
            seen = (found.st_mtime_ns, found.st_ino, found.st_size)
            if seen != self._seen:
                self._registry = self._checked(self.path.read_bytes())
                self._seen = seen
        except OSError as error:
            raise BrokerRefuses(
                f"The registry {self.path} cannot be read ({error.strerror}): write the file first, with the addresses "
                f"of all consumers."
            ) from error
        return self._registry

    def _checked(self, content: bytes) -> Registry:
        try:
            registry = msgspec.json.decode(content, type=Registry)
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            raise BrokerRefuses(f"{self.path} is no registry: {error}.") from error
        if registry.lanes != self.lanes:
            raise BrokerRefuses(
                f"The registry {self.path} says {registry.lanes} lanes for each channel, and we are to use "
                f"{self.lanes}: set lanes={registry.lanes} in the URL. Another number moves keys to other lanes."
            )
        for consumer in registry.consumers:
            registry.addresses(consumer)
        return registry

    def declare(self, readers: Mapping[str, Collection[str]]) -> list[str]:
        """Add channels and readers that are missing; returns the channels that were not there. Raises BrokerRefuses
        for a reader without an address, and when something is missing in a file that we may not write."""
        if _missing(self.read(), readers, self.path) == ([], []):
            return []
        try:
            with locked(self.path.parent):
                registry = self.read()  # another one may have written it meanwhile
                new, _ = _missing(registry, readers, self.path)
                channels = {**registry.channels}
                for channel, consumers in readers.items():
                    channels[channel] = sorted({*channels.get(channel, ()), *consumers})
                _replace(self.path, msgspec.structs.replace(registry, channels=channels))
                return new
        except OSError as error:
            raise BrokerRefuses(
                f"The registry {self.path} lacks channels or their readers, and cannot be written "
                f"({error.strerror}): add {', '.join(readers)} to it."
            ) from error


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """One writer at a time, of all processes on this host."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _missing(
    registry: Registry, readers: Mapping[str, Collection[str]], path: Path
) -> tuple[list[str], list[tuple[str, str]]]:
    """The channels that are not there, and pairs of a channel that is there and a reader that it lacks."""
    for consumer in sorted({name for names in readers.values() for name in names}):
        if not registry.consumers.get(consumer):
            raise BrokerRefuses(f"The registry {path} has no address for the consumer {consumer}: add it.")
    known = registry.channels
    lacks = [(c, x) for c, consumers in readers.items() if c in known for x in consumers if x not in known[c]]
    return [channel for channel in readers if channel not in known], lacks


def _replace(path: Path, registry: Registry) -> None:
    """Whole: who reads it meanwhile sees the old one or the new one."""
    new = path.with_name(f".{path.name}.new")
    new.write_bytes(msgspec.json.format(msgspec.json.encode(registry)))
    new.chmod(path.stat().st_mode & 0o777)
    os.replace(new, path)


def registry_at(url: str) -> RegistryFile:
    """Raises BrokerRefuses for a URL of another form."""
    parts = urlsplit(url)
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    lanes = options.pop("lanes", str(LANES))
    if (
        parts.netloc not in {"", "localhost"}
        or not parts.path.strip("/")
        or options
        or not lanes.isascii()
        or not lanes.isdigit()
    ):
        raise BrokerRefuses(f"{url!r} is no URL of a registry: it has the form {_FORM}.")
    if not 1 <= int(lanes) <= 1000:
        raise BrokerRefuses(f"lanes={lanes} in the URL: a number from 1 to 1000.")
    return RegistryFile(Path(unquote(parts.path)), int(lanes))
