"""Field types that several messages share."""

from typing import Annotated

import msgspec

# The length too: "$" alone would let a line feed pass at the end.
Id = Annotated[
    str, msgspec.Meta(pattern="^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$", max_length=36)
]
"""A UUID as lower-case text."""

Quantity = Annotated[int, msgspec.Meta(ge=1, le=100)]


class Address(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    street1: str
    street2: str | None = None
    city: str
    state: str
    zip: str
