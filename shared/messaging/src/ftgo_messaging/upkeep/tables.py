"""The tables that every service of this library has."""

from sqlalchemy import MetaData

from ftgo_messaging.consumer.tables import (
    dead_letters_table,
    lane_lease_table,
    lane_member_table,
    processed_messages_table,
)
from ftgo_messaging.outbox.table import outbox_table, relay_lease_table, relay_position_table


def messaging_tables(metadata: MetaData) -> None:
    """Declare them: outbox, leases and positions of the relays, handled messages, dead letters, leases of lanes. Those
    of sagas and gatherings are declared by the services that have some."""
    for declare in (
        outbox_table,
        relay_lease_table,
        relay_position_table,
        processed_messages_table,
        dead_letters_table,
        lane_lease_table,
        lane_member_table,
    ):
        declare(metadata)
