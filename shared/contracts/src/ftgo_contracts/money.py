"""Money: an exact amount with two places, one currency. Immutable; kept as integer minor units (cents)."""

from __future__ import annotations

import re
from decimal import Decimal
from functools import total_ordering

_FORM = re.compile(r"-?[0-9]{1,12}(\.[0-9]{1,2})?")
_WIRE_FORM = re.compile(r"[0-9]{1,10}(\.[0-9]{1,2})?")


@total_ordering
class Money:
    """``Money(6170)`` is 61.70. On the wire and in JSON it is the string "61.70"."""

    # A plain class on purpose: msgspec would write a dataclass or a tuple as an object or array of its own making,
    # without asking to_wire().
    __slots__ = ("_minor_units",)

    def __init__(self, minor_units: int) -> None:
        self._minor_units = minor_units

    @property
    def minor_units(self) -> int:
        return self._minor_units

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
        """Raises ValueError for all but a string (a JSON number has lost its cents in many a parser), for less than
        nothing (in messages there are prices, totals and limits only), and for more than 9,999,999,999.99."""
        if not isinstance(text, str) or not _WIRE_FORM.fullmatch(text):
            raise ValueError(f"{text!r} is not an amount of money like '61.70'")
        return cls.of(text)

    def to_wire(self) -> str:
        return str(self)

    @property
    def decimal(self) -> Decimal:
        return Decimal(self._minor_units).scaleb(-2)

    def __str__(self) -> str:
        sign = "-" if self._minor_units < 0 else ""
        units, cents = divmod(abs(self._minor_units), 100)
        return f"{sign}{units}.{cents:02d}"

    def __repr__(self) -> str:
        return f"Money({self._minor_units})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Money) and self._minor_units == other._minor_units

    def __lt__(self, other: Money) -> bool:
        return self._minor_units < other._minor_units

    def __hash__(self) -> int:
        return hash(self._minor_units)

    def __add__(self, other: Money) -> Money:
        return Money(self._minor_units + other._minor_units)

    def __sub__(self, other: Money) -> Money:
        return Money(self._minor_units - other._minor_units)

    def __mul__(self, times: int) -> Money:
        return Money(self._minor_units * times)
