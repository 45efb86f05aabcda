"""How the conformance suite judges what a broker delivered: nothing lost, nothing twice, order of each entity."""

from collections import Counter
from collections.abc import Iterable

from ftgo_messaging.messages import message as m
from ftgo_messaging.messages.channel import Channel
from ftgo_messaging.messages.ids import new_id
from ftgo_messaging.messages.message import Message
from ftgo_messaging.transports.port import Record


def messages(channel: Channel, entity: str, numbers: Iterable[int], key: str | None = None) -> list[Message]:
    """Numbered messages about one thing, which is their key as well, unless another is given."""
    return [message(channel, entity if key is None else key, n, entity=entity) for n in numbers]


def message(channel: Channel, key: str, n: int, *, entity: str = "", body: bytes = b"{}", **headers: str) -> Message:
    message_id = new_id()
    fixed = {m.ID: message_id, m.TYPE: "suite.Step", m.SUBJECT: entity or key, m.SEQUENCE: str(n)}
    fixed[m.KIND] = channel.kind.value
    return Message(message_id, channel.name, key, {**fixed, **headers}, body)


def id_of(record: Record) -> str:
    return _header(record, m.ID)


def _header(record: Record, name: str) -> str:
    return (dict(record.headers).get(name) or b"").decode()


def missing(sent: Iterable[Message], got: Iterable[Record]) -> list[str]:
    """What did not come, as ENTITY:NUMBER."""
    came = {id_of(record) for record in got}
    return [f"{x.headers[m.SUBJECT]}:{x.headers[m.SEQUENCE]}" for x in sent if x.id not in came]


def doubled(got: Iterable[Record]) -> list[str]:
    """What came more than once."""
    return [origin for origin, times in Counter(record.origin for record in got).items() if times > 1] + [
        message_id for message_id, times in Counter(id_of(record) for record in got).items() if times > 1
    ]


def disorder(got: Iterable[Record]) -> int:
    """How many came for the first time behind a later one of their entity. A repetition is no disorder."""
    seen: set[str] = set()
    highest: dict[str, int] = {}
    wrong = 0
    for record in got:
        if id_of(record) not in seen:
            seen.add(id_of(record))
            entity, n = _header(record, m.SUBJECT), int(_header(record, m.SEQUENCE))
            wrong += n < highest.get(entity, -1)
            highest[entity] = max(n, highest.get(entity, -1))
    return wrong
