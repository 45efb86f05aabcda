"""Field types that several messages share."""

from typing import Annotated

import msgspec

# The length too: "$" alone would let a line feed pass at the end.
Id = Annotated[
    str, msgspec.Meta(pattern="^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$", max_length=36)
]
"""A UUID as lower-case text."""

Quantity = Annotated[int, msgspec.Meta(ge=1, le=100)]
