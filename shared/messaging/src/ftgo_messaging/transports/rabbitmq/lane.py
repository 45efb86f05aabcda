"""A lane as a member reads it: its queue, its AMQP channel, and what was given of it."""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from aiormq.abc import AbstractChannel

from ftgo_messaging.transports.port import Record

PREFETCH = 32
"""Records of a lane that RabbitMQ gives in advance: with some lanes enough for a batch."""


@dataclass(slots=True)
class Held:
    record: Record
    size: int
    tag: int


@dataclass(slots=True, eq=False)
class Lane:
    """``held`` is what was given and not taken; ``unsettled`` and ``size``: how many records, and bytes, were given and
    not settled."""

    name: str
    channel: str
    queue: str
    amqp: AbstractChannel | None = None
    held: deque[Held] = field(default_factory=deque)
    unsettled: int = 0
    size: int = 0
    prefetch: int = PREFETCH
    large: bool = False

    def forget(self) -> AbstractChannel | None:
        """What was given; RabbitMQ gives it again when the AMQP channel is closed, which is returned."""
        amqp, self.amqp = self.amqp, None
        self.held.clear()
        self.unsettled = self.size = 0
        return amqp


@dataclass(frozen=True, slots=True)
class Receipt:
    """What was taken of each lane, and the AMQP channel that it came through."""

    taken: Mapping[Lane, tuple[AbstractChannel, list[Held]]]
