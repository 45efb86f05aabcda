"""The mail adapter of this reference system: a mail that was committed is told to the log.

A real one reads ``outbound_mail`` and hands each row to a provider, with the row's id as the idempotency key. The table
is the record; a crash between the commit and the line in the log loses the line only.
"""

import structlog
from ftgo_messaging import UnitOfWork

from ftgo_consumer.adapters.tables import outbound_mail

log = structlog.get_logger("ftgo.mail")


def log_mail(uow: UnitOfWork) -> None:
    """Called after each commit. Ids only: what a mail says is nobody else's business."""
    for mail in uow.appended(outbound_mail):
        log.info("mail.outbound", consumer=mail["consumer_id"], order=mail["order_id"])
