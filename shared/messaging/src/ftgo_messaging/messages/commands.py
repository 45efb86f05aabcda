"""Commands: "do this", sent to exactly one service. ``Command[R]`` names the reply that success brings."""

from typing import Generic, TypeVar

import msgspec

from ftgo_messaging.messages.replies import Reply

R = TypeVar("R", bound=Reply)


class Command(msgspec.Struct, Generic[R], frozen=True, kw_only=True, rename="camel"):
    """Base of all commands. Subclasses are plain records: ``class CreateTicket(Command[TicketCreated]): ...``.

    Unknown fields are ignored on receipt, so that a newer sender may add some."""
