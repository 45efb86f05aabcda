"""Field types that several messages share."""

from typing import Annotated

import msgspec

Id = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$")]
"""A UUID as lower-case text."""

Quantity = Annotated[int, msgspec.Meta(ge=1, le=100)]
