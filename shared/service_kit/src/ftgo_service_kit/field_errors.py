"""What is wrong with a field, in words. Pydantic's own speak of Python and of regular expressions."""

from collections.abc import Mapping
from typing import Any

from ftgo_service_kit.schemas import AMOUNT_PATTERN, EMAIL_PATTERN, UUID_PATTERN

_PLACES = ("body", "query", "path", "header", "cookie")
_PATTERNS = {
    UUID_PATTERN: "is not a UUID like 0197a3c0-0000-7000-8000-000000000001",
    AMOUNT_PATTERN: "is not an amount with at most two places like 61.70",
    EMAIL_PATTERN: "is not an e-mail address like ada@example.com",
}
_WORDS = {
    "missing": "is missing",
    "extra_forbidden": "is not a field of this request",
    "value_error": "{error}",
    "string_type": "must be a text",
    "string_unicode": "must not contain half of a surrogate pair",
    "string_too_short": "must not be empty",
    "string_too_long": "must not have more than {max_length} characters",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_parsing_size": "must be a smaller number",
    "greater_than_equal": "must not be less than {ge}",
    "less_than_equal": "must not be more than {le}",
    "enum": "must be one of {expected}",
    "list_type": "must be an array",
    "too_short": "must have at least {min_length} in it",
    "too_long": "must not have more than {max_length} in it",
    "model_type": "must be an object",
    "model_attributes_type": "must be an object",
    "datetime_parsing": "is not a time: {error}",
    "datetime_from_date_parsing": "is not a time: {error}",
}
"""By pydantic's names of errors: https://docs.pydantic.dev/latest/errors/validation_errors/"""


def field_error(error: Mapping[str, Any]) -> dict[str, str]:
    """For the list ``errors`` of a problem."""
    return {"field": _field(error["loc"]), "message": _message(error)}


def _field(location: tuple[int | str, ...]) -> str:
    """("body", "lineItems", 0, "quantity") -> lineItems.0.quantity; the body as a whole is "body"."""
    inside = location[1:] if len(location) > 1 and location[0] in _PLACES else location
    return ".".join(str(part) for part in inside)


def _message(error: Mapping[str, Any]) -> str:
    context = error.get("ctx", {})
    if error["type"] == "string_pattern_mismatch":
        return _PATTERNS.get(context["pattern"], str(error["msg"]))
    words = _WORDS.get(error["type"])
    return str(error["msg"]) if words is None else words.format_map(context)
