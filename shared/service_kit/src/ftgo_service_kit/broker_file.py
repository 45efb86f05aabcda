"""A file that names the brokers of a system, and may be replaced while it runs: FTGO_BROKER_FILE.

    {"generation": 2, "send": "amqp://user:password@host", "read": ["kafka://host:9092"]}

``send`` is where the relay publishes; consumers read it and all of ``read``, which are those that are being left.
``generation`` grows with each content. The file is replaced as a whole, by a rename (as Kubernetes does with a mounted
secret), and should be readable for its owner only.
"""

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ftgo_messaging import BrokerRefuses, transport_at
from ftgo_messaging.transports import PACKAGES

_LAST_GENERATION = 2**63 - 1


class BadBrokerFile(ValueError):
    """The text is a sentence, and holds nothing of the URLs, which may have passwords."""


@dataclass(frozen=True, slots=True)
class Addresses:
    """``generation`` is None where the broker is fixed."""

    send: str
    read: tuple[str, ...] = ()
    generation: int | None = None

    @property
    def all(self) -> tuple[str, ...]:
        return (self.send, *self.read)


def read_broker_file(path: Path) -> Addresses:
    """Raises BadBrokerFile."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "no JSON"
        raise BadBrokerFile(f"{path} cannot be read ({why})") from None
    if not isinstance(content, dict):
        raise BadBrokerFile(f"{path} should hold an object with generation, send and read")
    return _addresses(path, content)


def _addresses(path: Path, content: Mapping[str, Any]) -> Addresses:
    if unknown := content.keys() - {"generation", "send", "read"}:
        raise BadBrokerFile(f"{path} has {', '.join(sorted(unknown))}, which means nothing: remove it")
    generation, send, read = content.get("generation"), content.get("send"), content.get("read", [])
    if type(generation) is not int or not 0 < generation <= _LAST_GENERATION:
        raise BadBrokerFile(f"{path}: generation should be a number from 1, that grows with each content")
    if not isinstance(send, str) or not isinstance(read, list) or not all(isinstance(url, str) for url in read):
        raise BadBrokerFile(f"{path}: send should be the URL of a broker, and read a list of such URLs")
    for place, url in [("send", send), *(("read", url) for url in read)]:
        try:
            if not urlsplit(url).scheme:
                raise BrokerRefuses("it has no scheme; write kafka://host:9092, say")
            transport_at(url)
        except (BrokerRefuses, ValueError) as error:
            raise BadBrokerFile(f"{path}: a URL of {place} names no broker: {error}") from None
    return Addresses(send, tuple(dict.fromkeys(url for url in read if url != send)), generation)


def kind_of(url: str) -> str:
    """``rabbitmq`` for amqp://, and so on."""
    return PACKAGES[urlsplit(url).scheme]


def name_of(url: str) -> str:
    """Tells the brokers of a file apart, whoever logs in there: ``nats-1f3a09c4``."""
    parts = urlsplit(url)
    place = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    return f"{kind_of(url)}-{zlib.crc32(place.encode()):08x}"
