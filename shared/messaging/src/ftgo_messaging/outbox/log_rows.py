"""From events of the log to rows of the outbox, and how far the log has been worked off."""

from collections.abc import Collection, Iterable
from typing import NamedTuple

import msgspec

from ftgo_messaging.messages.message import Message, renamed
from ftgo_messaging.outbox.delivery import Row
from ftgo_messaging.outbox.pgoutput import Begin, Commit, Event, Insert, Relation

_COLUMNS = ("position", "shard", "message_id", "channel", "key", "headers", "body")
_headers_of = msgspec.json.Decoder(dict[str, str])


class Shown(NamedTuple):
    """What a part of the log has shown: rows of our shards, in the order of their commits; for the position of each
    its transaction; and the LSN behind the last whole transaction, or None when no transaction ended."""

    rows: list[Row]
    xids: dict[int, int]
    end_lsn: int | None


class LogRows:
    """The log of one stream, part by part. ``done_lsn``: everything that committed before it is published, or left to
    a sweep of the table; so much may be confirmed."""

    def __init__(self, start_lsn: int) -> None:
        self.done_lsn = start_lsn
        self.in_transaction = False
        self._xid = 0
        self._columns: dict[int, list[int]] = {}

    def take_in(self, events: Iterable[Event], shards: Collection[int]) -> Shown:
        rows: list[Row] = []
        xids: dict[int, int] = {}
        end_lsn = None
        for event in events:
            match event:
                case Insert():
                    row = self._row(event)
                    if row.shard in shards:
                        rows.append(row)
                        xids[row.position] = self._xid
                case Commit():
                    end_lsn, self.in_transaction = event.end_lsn, False
                case Begin():
                    self.in_transaction, self._xid = True, event.xid
                case Relation():
                    self._columns[event.id] = [event.columns.index(name) for name in _COLUMNS]
        return Shown(rows, xids, end_lsn)

    def advance(self, shown: Shown, server_lsn: int) -> None:
        """What was shown is published or left to a sweep. Only whole transactions count: the rows of one share their
        place in the log."""
        if shown.end_lsn is not None:
            self.done_lsn = shown.end_lsn
        elif not shown.rows and not self.in_transaction:
            # Nothing is under way: what other databases write moves the server on too, or their log would be kept.
            self.done_lsn = max(self.done_lsn, server_lsn)

    def _row(self, insert: Insert) -> Row:
        values = insert.values
        position, shard, message_id, channel, key, headers, body = [
            values[i] or b"" for i in self._columns[insert.relation]
        ]
        x = message_id.hex()
        dashed = f"{x[:8]}-{x[8:12]}-{x[12:16]}-{x[16:20]}-{x[20:]}"
        message = Message(dashed, channel.decode(), key.decode(), renamed(_headers_of.decode(headers)), body)
        return Row(int.from_bytes(position), int.from_bytes(shard), message)
