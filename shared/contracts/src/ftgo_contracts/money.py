"""Money: an exact amount with two places, one currency. Immutable; kept as integer minor units (cents)."""

from __future__ import annotations

import re
from decimal import Decimal
from functools import total_ordering

_FORM = re.compile(r"-?\d{1,12}(\.\d{1,2})?")


@total_ordering
class Money:
    """``Money(6170)`` is 61.70. On the wire and in JSON it is the string "61.70".

    Not a dataclass: msgspec would write one as an object of its fields instead of asking ``to_wire``."""

    __slots__ = ("minor_units",)

    minor_units: int

    def __init__(self, minor_units: int) -> None:
        object.__setattr__(self, "minor_units", minor_units)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("money never changes")

    @classmethod
    def zero(cls) -> Money:
        return cls(0)

    @classmethod
    def of(cls, amount: str | Decimal) -> Money:
        """Raises ValueError for more than two places, for an exponent, and for anything that is no number."""
        text = str(amount)
        if not _FORM.fullmatch(text):
            raise ValueError(f"{text!r} is not an amount of money like '61.70'")
        return cls(int(Decimal(text).scaleb(2)))

    @classmethod
    def from_wire(cls, text: object) -> Money:
        """As ``of``, but a JSON number is refused: 61.7 may have been through a float."""
        if not isinstance(text, str):
            raise ValueError(f"{text!r} is not an amount of money like '61.70'")
        return cls.of(text)

    def to_wire(self) -> str:
        return str(self)

    @property
    def decimal(self) -> Decimal:
        return Decimal(self.minor_units).scaleb(-2)

    def __str__(self) -> str:
        sign = "-" if self.minor_units < 0 else ""
        units, cents = divmod(abs(self.minor_units), 100)
        return f"{sign}{units}.{cents:02d}"

    def __repr__(self) -> str:
        return f"Money.of('{self}')"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Money) and self.minor_units == other.minor_units

    def __lt__(self, other: Money) -> bool:
        return self.minor_units < other.minor_units

    def __hash__(self) -> int:
        return hash(self.minor_units)

    def __copy__(self) -> Money:
        return self

    def __deepcopy__(self, memo: object) -> Money:
        return self

    def __reduce__(self) -> tuple[type[Money], tuple[int]]:
        return Money, (self.minor_units,)

    def __add__(self, other: Money) -> Money:
        return Money(self.minor_units + other.minor_units)

    def __sub__(self, other: Money) -> Money:
        return Money(self.minor_units - other.minor_units)

    def __mul__(self, times: int) -> Money:
        return Money(self.minor_units * times)
