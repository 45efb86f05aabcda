"""Invariants of the delivery: nothing lost, nothing invented, nothing unhandled, nothing out of turn."""

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from evidence import Evidence, Row, Sent
from violation import Violation


def no_loss(evidence: Evidence) -> Iterator[Violation]:
    """I4: what was committed to an outbox is on its topic, as it was written; nothing else is."""
    for message in evidence.sent_by_id.values():
        copies = [r for r in evidence.records_by_id.get(message.id, ()) if r.topic == message.channel]
        if not copies:
            yield Violation("I4", f"{message.type} {message.id} was committed and never published", [message.brief()])
        elif copies[0].key != message.key:
            yield Violation("I4", f"{message.type} {message.id} was altered", [message.brief(), copies[0].brief()])
    for name, records in evidence.records_by_id.items():
        if name not in evidence.sent_by_id and name not in evidence.forged:
            yield Violation("I4", f"{name} was published and never committed", [records[0].brief()])


def handled(evidence: Evidence) -> Iterator[Violation]:
    """I5: each message of a subscribed topic is recorded as handled once, or is a dead letter; never neither."""
    claims: dict[tuple[str, str, str], int] = defaultdict(int)
    dead: dict[tuple[str, str, str], int] = defaultdict(int)
    for service in evidence.commits:
        for _, row in evidence.written(service, "processed_messages", "insert"):
            claims[service, row["consumer"], row["message_id"]] += 1
        for _, row in evidence.written(service, "dead_letters", "insert"):
            dead[service, row["consumer"], row["message_id"] or ""] += 1
    for subscription in evidence.subscriptions:
        service, consumer, types = subscription["service"], subscription["consumer"], subscription["types"]
        for name, records in evidence.records_by_id.items():
            first = records[0]
            if first.topic not in subscription["topics"]:
                continue
            poisoned = name in evidence.poison
            if not poisoned and types is not None and first.headers.get("type") not in types:
                continue
            here = (service, consumer, name)
            if poisoned or subscription["deduplicates"]:
                where = f"{first.headers.get('type')} {name} at {consumer}"
                if not dead[here] and (poisoned or not claims[here]):
                    yield Violation("I5", f"{where}: neither handled nor a dead letter", [first.brief()])
                elif claims[here] > 1 or (dead[here] > 1 and len(records) == 1):
                    shown = {"consumer": consumer, "records of handling": claims[here], "dead letters": dead[here]}
                    yield Violation("I5", f"{where}: handled twice", [first.brief(), shown])
    yield from _unknown_claims(evidence, claims)


def _unknown_claims(evidence: Evidence, claims: dict[tuple[str, str, str], int]) -> Iterator[Violation]:
    consumers = {(s["service"], s["consumer"]) for s in evidence.subscriptions}
    for (service, consumer, name), count in claims.items():
        if count and (name not in evidence.records_by_id or (service, consumer) not in consumers):
            shown = {"service": service, "consumer": consumer, "id": name}
            yield Violation("I5", f"{consumer} has handled {name}, which it never received", [shown])


def _order_group(message: Sent) -> tuple[str, str, str, str]:
    """Messages whose writers are serialised: of one key and one aggregate. Commands to an account or a consumer are
    keyed by it, but written under the lock of an order: only those of one order are in order."""
    about = message.body.get("orderId") or message.body.get("ticketId") or message.saga or message.cause or message.key
    return (
        message.service,
        message.channel,
        message.key,
        about if message.channel.endswith(".commands") else message.key,
    )


def order(evidence: Evidence) -> Iterator[Violation]:
    """I6: per key, first occurrences on a topic are in commit order and in one partition, and are handled so."""
    last: dict[tuple[str, str, str, str], tuple[Sent, Any]] = {}
    for message in evidence.sent_by_id.values():
        records = [r for r in evidence.records_by_id.get(message.id, ()) if r.topic == message.channel]
        if not records:
            continue
        first = records[0]
        group = _order_group(message)
        before = last.get(group)
        if before is not None:
            earlier, there = before
            if there.partition != first.partition:
                yield Violation("I6", f"key {message.key} is in two partitions", [there.brief(), first.brief()])
            elif there.offset > first.offset:
                shown = [earlier.brief() | there.brief(), message.brief() | first.brief()]
                yield Violation("I6", f"key {message.key}: {message.id} overtook {earlier.id}", shown)
        if before is None or before[1].offset < first.offset:
            last[group] = (message, first)
    yield from _handling_order(evidence)


def _handling_order(evidence: Evidence) -> Iterator[Violation]:
    """Of one key and one writer, no message is handled in an earlier commit than one before it on the topic."""
    when: dict[tuple[str, str], int] = {}
    for service in evidence.commits:
        for commit, row in evidence.written(service, "processed_messages", "insert"):
            when.setdefault((row["consumer"], row["message_id"]), commit.number)
    consumers = {t: s["consumer"] for s in evidence.subscriptions for t in s["topics"] if s["deduplicates"]}
    latest: dict[tuple[str, ...], tuple[int, Row]] = {}
    seen: set[str] = set()
    for record in evidence.records:  # per partition in order of offset
        message = evidence.sent_by_id.get(record.id)
        consumer = consumers.get(record.topic)
        if message is None or consumer is None or record.id in seen or (consumer, record.id) not in when:
            continue
        seen.add(record.id)
        group, commit = (consumer, *_order_group(message)), when[consumer, record.id]
        before = latest.get(group)
        if before is not None and before[0] > commit:
            shown = [before[1], record.brief() | {"handled in commit": commit}]
            yield Violation("I6", f"{consumer} handled {record.id} before an earlier one of its key", shown)
        if before is None or before[0] <= commit:
            latest[group] = (commit, record.brief() | {"handled in commit": commit})


def dead_letters(evidence: Evidence) -> Iterator[Violation]:
    """I15: only what cannot be delivered is a dead letter."""
    for service in evidence.commits:
        for _, row in evidence.written(service, "dead_letters", "insert"):
            if row["message_id"] not in evidence.poison:
                error = (row["error"] or "").strip().splitlines()[-1:]
                shown = {"service": service, "consumer": row["consumer"], "id": row["message_id"], "error": error}
                yield Violation(
                    "I15", f"{row['consumer']}: {row['message_id']} is a dead letter for no reason", [shown]
                )
