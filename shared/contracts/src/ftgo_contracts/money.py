"""Money: an exact amount with two places, one currency. Immutable; kept as integer minor units (cents)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal

_FORM = re.compile(r"-?\d{1,12}(\.\d{1,2})?")


@dataclass(frozen=True, slots=True, order=True)
class Money:
    """``Money(6170)`` is 61.70. On the wire and in JSON it is the string "61.70"."""

    minor_units: int

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

    from_wire = of

    def to_wire(self) -> str:
        return str(self)

    @property
    def decimal(self) -> Decimal:
        return Decimal(self.minor_units).scaleb(-2)

    def __str__(self) -> str:
        sign = "-" if self.minor_units < 0 else ""
        units, cents = divmod(abs(self.minor_units), 100)
        return f"{sign}{units}.{cents:02d}"

    def __add__(self, other: Money) -> Money:
        return Money(self.minor_units + other.minor_units)

    def __sub__(self, other: Money) -> Money:
        return Money(self.minor_units - other.minor_units)

    def __mul__(self, times: int) -> Money:
        return Money(self.minor_units * times)
