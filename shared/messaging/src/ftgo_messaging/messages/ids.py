"""Identifiers: UUIDv7 as text. Ids carry index locality, never order: use positions and versions for that."""

import uuid_utils


def new_id() -> str:
    """A new UUIDv7, 36 characters."""
    return str(uuid_utils.uuid7())
