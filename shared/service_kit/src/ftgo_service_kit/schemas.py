"""Types of the HTTP edge. Unknown fields are refused, so that a misspelt one is told and not ignored."""

import re
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    StringConstraints,
)
from pydantic.alias_generators import to_camel

from ftgo_service_kit.texts import visible

UUID_PATTERN = "^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$"
AMOUNT_PATTERN = r"^[0-9]{1,9}(\.[0-9]{1,2})?$"
EMAIL_PATTERN = r"^[!-?A-~]+@[!-?A-~]+$"

# https://www.rfc-editor.org/rfc/rfc3339#section-5.6
_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)", re.ASCII)

# Taken in either case, as RFC 9562 says, kept and given in small letters.
UuidStr = Annotated[
    str, Field(pattern=UUID_PATTERN, examples=["0197a3c0-0000-7000-8000-000000000001"]), AfterValidator(str.lower)
]

Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200), AfterValidator(visible)]
"""Something that people read. Blanks around it are taken away."""

Email = Annotated[str, StringConstraints(strip_whitespace=True, max_length=254, pattern=EMAIL_PATTERN)]

ABSENT_IF_BLANK = BeforeValidator(lambda value: None if isinstance(value, str) and not value.strip() else value)
"""For what may be left out: a form sends a field that nobody has filled in as an empty text."""

Amount = Annotated[str, Field(pattern=AMOUNT_PATTERN, examples=["61.70"])]
"""Money as it is written in JSON: a string with at most two places."""


def _only_rfc3339(value: object) -> object:
    # Left to itself, pydantic takes numbers for seconds since 1970, and digits in a text as well.
    if not (isinstance(value, str) and _RFC3339.fullmatch(value)):
        raise ValueError("is not a time with its zone, like 2030-01-01T19:00:00Z")
    return value


def _in_utc(time: datetime) -> datetime:
    try:
        time = time.astimezone(UTC)
    except OverflowError:  # 9999-12-31T23:59-12:00 lies in the year 10000
        raise ValueError("is not a time of this calendar in UTC") from None
    # The driver takes the first and the last instant for infinity, and reads infinity back without a zone.
    if time.year in (datetime.min.year, datetime.max.year):
        raise ValueError("must be in the years 2 to 9998")
    return time


Time = Annotated[AwareDatetime, BeforeValidator(_only_rfc3339), AfterValidator(_in_utc)]
"""A point in time: taken as RFC 3339 writes it, with any zone, and kept in UTC."""

MoneyOut = Annotated[Any, PlainSerializer(str, return_type=str), Field(json_schema_extra={"type": "string"})]


class ApiModel(BaseModel):
    """Fields in camelCase; unknown ones are an error.

    A list of a request is a ``list`` with a ``max_length``: pydantic counts that one while it reads, but a tuple only
    when every entry has been validated."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True)


class Problem(BaseModel):
    """RFC 9457: what went wrong, in a form for programs (``type``) and for people (``detail``)."""

    type: str
    title: str
    status: int
    detail: str
    errors: list[dict[str, str]] | None = None
