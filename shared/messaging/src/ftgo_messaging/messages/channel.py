"""Channels: where messages go. A Kafka topic is one way to realise a channel; nothing here knows Kafka.

A channel knows which types it carries and how a message's key is found. The key is the unit of order:
messages of one key arrive in the order in which their transactions committed; nothing holds across keys.
"""

from collections.abc import Callable
from enum import StrEnum
from typing import TypeVar

import msgspec

from ftgo_messaging.messages.message import Kind
from ftgo_messaging.messages.registry import MessageType, register

T = TypeVar("T", bound=type[msgspec.Struct])


class Poison(StrEnum):
    """What a message that cannot be handled means for the later ones of its key."""

    PARK_KEY = "PARK_KEY"
    GO_ON = "GO_ON"


class Channel:
    """A named channel of one kind.

    ``key`` computes the message key from a body, for the sender and for the receiver, who believes no other. Commands:
    the id of the aggregate that they change. Documents: what they are about; of one key the newest comes last. Events
    have their subject (the aggregate's id) as their key, given when they are sent; where the body names the aggregate
    too, the rule says where, and both must agree. The key of a reply is the saga's id.
    """

    def __init__(self, name: str, kind: Kind, key: Callable[..., str] | None = None) -> None:
        if kind in {Kind.COMMAND, Kind.DOCUMENT} and key is None:
            raise ValueError(f"channel {name}: a {kind} channel needs a key rule, e.g. key=lambda c: c.order_id")
        self.name = name
        self.kind = kind
        self.key = key
        self.types: dict[str, MessageType] = {}

    def carries(self, wire_name: str, *, version: int = 1, replies_to: tuple["Channel", ...] = ()) -> Callable[[T], T]:
        """Declare a type of this channel: ``@KITCHEN_COMMANDS.carries("ftgo.kitchen.CreateTicket")``.

        ``replies_to`` lists the reply channels that a sender may name; a command or event that names another is a
        dead letter. Otherwise a forged one could make its receiver write to any channel that it may write to.
        Raises ValueError when the wire name is taken.
        """

        def declare(cls: T) -> T:
            self.types[wire_name] = register(
                cls,
                wire_name,
                version=version,
                kind=self.kind,
                channel=self.name,
                key=self.key,
                reply_channels=[c.name for c in replies_to],
            )
            return cls

        return declare

    def __repr__(self) -> str:
        return f"Channel({self.name})"
