"""Types of the HTTP edge. Unknown fields are refused, so that a misspelt one is told and not ignored."""

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainSerializer
from pydantic.alias_generators import to_camel

UUID_PATTERN = "^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$"
AMOUNT_PATTERN = r"^[0-9]{1,9}(\.[0-9]{1,2})?$"

IN_WORDS = {
    UUID_PATTERN: "is not a UUID like 0197a3c0-0000-7000-8000-000000000001",
    AMOUNT_PATTERN: "is not an amount with at most two places like 61.70",
}
"""What to say to somebody whose text does not match a pattern."""

# Taken in either case, as RFC 9562 says, kept and given in small letters.
UuidStr = Annotated[
    str, Field(pattern=UUID_PATTERN, examples=["0197a3c0-0000-7000-8000-000000000001"]), AfterValidator(str.lower)
]


def _no_control_characters(text: str) -> str:
    # PostgreSQL cannot store U+0000, and the others hide what a log line or a page shows.
    if any(ord(c) < 32 or 0xD800 <= ord(c) <= 0xDFFF for c in text):
        raise ValueError("must not contain control characters")
    return text


Text = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_no_control_characters)]
Amount = Annotated[str, Field(pattern=AMOUNT_PATTERN, examples=["61.70"])]
"""Money as it is written in JSON: a string with at most two places."""

MoneyOut = Annotated[Any, PlainSerializer(str, return_type=str), Field(json_schema_extra={"type": "string"})]


class ApiModel(BaseModel):
    """Fields in camelCase; unknown ones are an error."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True)


class Problem(BaseModel):
    """RFC 9457: what went wrong, in a form for programs (``type``) and for people (``detail``)."""

    type: str
    title: str
    status: int
    detail: str
    errors: list[dict[str, str]] | None = None
