"""Wire name <-> class. Wire names are stable words of the contract, never Python paths.

Moving or renaming a class changes nothing on the wire; two classes can never share a name.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec

from ftgo_messaging.messages.message import Kind
from ftgo_messaging.runtime.errors import Undecodable

T = TypeVar("T", bound=type[msgspec.Struct])


@dataclass(frozen=True, slots=True, eq=False)
class MessageType:
    """One type of message as it is known on the wire: its channel, the rule for its key, and the channels on which it
    may be answered. A reply has no channel of its own."""

    cls: type[msgspec.Struct]
    name: str
    version: int
    kind: Kind
    channel: str | None
    key: Callable[[Any], str] | None
    reply_channels: frozenset[str]

    @property
    def schema(self) -> str:
        return f"{self.name}/v{self.version}"


_by_name: dict[str, MessageType] = {}
_by_class: dict[type, MessageType] = {}
_reply_channels: set[str] = set()


def register(
    cls: type[msgspec.Struct],
    name: str,
    *,
    version: int,
    kind: Kind,
    channel: str | None = None,
    key: Callable[[Any], str] | None = None,
    reply_channels: Collection[str] = (),
) -> MessageType:
    """Register ``cls`` under ``name``. Raises ValueError if another class has that name."""
    known = _by_name.get(name)
    if known is not None and known.cls.__qualname__ != cls.__qualname__:
        raise ValueError(f"wire name {name} belongs to {known.cls.__qualname__} already")
    entry = MessageType(cls, name, version, kind, channel, key, frozenset(reply_channels))
    _by_name[name] = entry
    _by_class[cls] = entry
    _reply_channels.update(entry.reply_channels)
    return entry


def reply_type(name: str, *, version: int = 1) -> Callable[[T], T]:
    """Declare a reply type. Replies travel on whichever reply channel their command named."""

    def declare(cls: T) -> T:
        register(cls, name, version=version, kind=Kind.REPLY)
        return cls

    return declare


def by_name(name: str) -> MessageType:
    """Raises Undecodable for a name that nobody registered."""
    try:
        return _by_name[name]
    except KeyError:
        raise Undecodable(f"unknown message type {name!r}") from None


def by_class(cls: type) -> MessageType:
    """Raises LookupError for a class that was never declared: a mistake of the program, not of a message."""
    try:
        return _by_class[cls]
    except KeyError:
        raise LookupError(f"{cls.__qualname__} is not declared: use Channel.carries(...) or reply_type(...)") from None


def is_reply_channel(name: str) -> bool:
    """Whether some type lists this channel for its answers."""
    return name in _reply_channels


def registered() -> list[MessageType]:
    """Every type that has been declared so far."""
    return list(_by_name.values())
