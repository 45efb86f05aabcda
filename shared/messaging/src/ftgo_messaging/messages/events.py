"""Events: "this has happened to this aggregate". Any number of services may listen; none is waited for."""

import msgspec


class DomainEvent(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Base of all events. The aggregate's id and version travel in the headers (subject and sequence)."""
