"""Keyset paging: a cursor names the last id seen, so pages neither skip nor repeat when rows are added."""

import base64
import binascii
import re

from ftgo_service_kit.problems import Unprocessable
from ftgo_service_kit.schemas import UUID_PATTERN

NOT_OURS = "cursor: this service has not given it. Take next of the page before, or leave it out for the first page"


class BadCursor(Unprocessable):
    slug = "bad-cursor"


def encode_cursor(last_id: str) -> str:
    return base64.urlsafe_b64encode(last_id.encode()).decode()


def decode_cursor(cursor: str | None) -> str | None:
    """The id behind a cursor that ``encode_cursor`` made. Raises BadCursor for anything else."""
    if not cursor:
        return None
    try:
        last_id = base64.urlsafe_b64decode(cursor.encode()).decode()
    except (binascii.Error, ValueError) as error:
        raise BadCursor(NOT_OURS) from error
    if not re.fullmatch(UUID_PATTERN, last_id):
        raise BadCursor(NOT_OURS)
    return last_id
