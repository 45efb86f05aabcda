"""Invariants of the delivery that need no broker's log: what was committed to an outbox against what was handled.

They stand in for chaos' I4 to I6, which read the log of one broker; here the messages of one key go through two.
"""

from collections import defaultdict
from collections.abc import Iterator

from evidence import Evidence, Row, Sent
from violation import Violation


def once(evidence: Evidence) -> Iterator[Violation]:
    """M1: every message that was committed is handled once by each consumer that is to have it; nothing else is."""
    claims: dict[tuple[str, str], int] = defaultdict(int)
    for service in evidence.commits:
        for _, row in evidence.written(service, "processed_messages", "insert"):
            claims[row["consumer"], row["message_id"]] += 1
    for subscription in evidence.subscriptions:
        consumer = subscription["consumer"]
        for message in _meant_for(evidence, subscription):
            if (count := claims[consumer, message.id]) != 1:
                shown = message.brief() | {"consumer": consumer}
                yield Violation("M1", f"{message.type} {message.id} was handled {count} times by {consumer}", [shown])
    for (consumer, name), count in claims.items():
        if count and name not in evidence.sent_by_id:
            yield Violation("M1", f"{consumer} has handled {name}, which nobody sent", [{"id": name}])


def in_order(evidence: Evidence) -> Iterator[Violation]:
    """M2: a consumer handles the messages of one key and one writer in the order of their commits."""
    when: dict[tuple[str, str], int] = {}
    for service in evidence.commits:
        for commit, row in evidence.written(service, "processed_messages", "insert"):
            when.setdefault((row["consumer"], row["message_id"]), commit.number)
    for subscription in evidence.subscriptions:
        consumer = subscription["consumer"]
        latest: dict[tuple[str, ...], tuple[int, Sent]] = {}
        for message in _meant_for(evidence, subscription):
            commit = when.get((consumer, message.id))
            if commit is None:
                continue  # M1 tells
            before = latest.get(group := _group(message))
            if before is not None and before[0] > commit:
                shown = [before[1].brief() | {"handled": before[0]}, message.brief() | {"handled": commit}]
                yield Violation("M2", f"{consumer} handled {message.id} before an earlier one of its key", shown)
            else:
                latest[group] = (commit, message)


def _meant_for(evidence: Evidence, subscription: Row) -> Iterator[Sent]:
    """In the order of their commits. A consumer that keeps no ids is judged by its replica (I9)."""
    if not subscription["deduplicates"]:
        return
    for message in evidence.sent_by_id.values():
        types = subscription["types"]
        if message.channel in subscription["topics"] and (types is None or message.type in types):
            yield message


def _group(message: Sent) -> tuple[str, ...]:
    """Messages whose writers are serialised. Commands to an account or a consumer are keyed by it, but written under
    the lock of an order: only those of one order are in order."""
    about = message.key
    if message.channel.endswith(".commands"):
        about = message.body.get("orderId") or message.body.get("ticketId") or message.saga or message.key
    return message.service, message.channel, message.key, about
