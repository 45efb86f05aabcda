"""Invariants of what messages do: effects exactly once, sagas on their path, replicas like their owners, and rest."""

from collections import defaultdict
from collections.abc import Iterator

from evidence import Evidence, Row, Sent
from violation import Violation

_SAGA_PATHS = {
    "ftgo.order.CreateOrder": {
        "": {"VerifyConsumer"},
        "VerifyConsumer": {"CreateTicket"},
        "CreateTicket": {"AuthorizePayment", "CancelCreateTicket"},
        "AuthorizePayment": {"ConfirmCreateTicket", "CancelCreateTicket", "ReverseAuthorization"},
        "ReverseAuthorization": {"CancelCreateTicket"},  # taken back because no answer came
    },
    "ftgo.order.CancelOrder": {
        "": {"BeginCancelTicket"},
        "BeginCancelTicket": {"ReverseAuthorization", "UndoBeginCancelTicket"},
        "ReverseAuthorization": {"ConfirmCancelTicket", "UndoBeginCancelTicket"},
    },
    "ftgo.order.ReviseOrder": {
        "": {"VerifyConsumer"},
        "VerifyConsumer": {"BeginReviseTicket"},
        "BeginReviseTicket": {"ReviseAuthorization", "UndoBeginReviseTicket"},
        "ReviseAuthorization": {"ConfirmReviseTicket", "UndoBeginReviseTicket"},
    },
}
_RETAINED_BYTES = 64 * 1024 * 1024


def effects(evidence: Evidence) -> Iterator[Violation]:
    """I7: every handled message has had its effect exactly once."""
    replies: dict[str, dict[str, Sent]] = defaultdict(dict)
    caused: dict[tuple[str | None, str, str, str], dict[str, Sent]] = defaultdict(dict)
    for message in evidence.sent:
        if message.answers:
            replies[message.answers][message.id] = message
        elif message.cause:
            caused[message.cause, message.channel, message.key, message.type][message.id] = message
    for (cause, _, key, _), messages in caused.items():
        if len(messages) > 1:
            shown = [m.brief() for m in list(messages.values())[:2]]
            yield Violation("I7", f"message {cause} took effect twice on {key}", shown)
    claimed = set()
    for service in evidence.commits:
        claimed |= {row["message_id"] for _, row in evidence.written(service, "processed_messages", "insert")}
        claimed -= {row["message_id"] for _, row in evidence.written(service, "dead_letters", "insert")}
    for name in claimed:
        command = evidence.sent_by_id.get(name)
        if command is None or "replychannel" not in command.headers:
            continue
        given = list(replies.get(name, {}).values())
        if len(given) != 1:
            shown = [command.brief(), *(r.brief() for r in given[:2])]
            yield Violation("I7", f"command {name} was handled and answered {len(given)} times", shown)
    yield from _mails(evidence, claimed)
    yield from _versions(evidence)


def _mails(evidence: Evidence, claimed: set[str]) -> Iterator[Violation]:
    asked: dict[str, list[Sent]] = defaultdict(list)
    for message in evidence.sent_by_id.values():
        if message.type == "ftgo.consumer.NotifyConsumer" and message.id in claimed:
            asked[message.body["orderId"]].append(message)
    mails: dict[str, int] = defaultdict(int)
    for _, row in evidence.written("consumer", "outbound_mail", "insert"):
        mails[row["order_id"]] += 1
    for name in asked.keys() | mails.keys():
        if mails[name] != len(asked[name]):
            shown = [*(m.brief() for m in asked[name]), {"order": name, "mails": mails[name]}]
            yield Violation(
                "I7", f"order {name}: {len(asked[name])} mails were asked for, {mails[name]} written", shown
            )


def _versions(evidence: Evidence) -> Iterator[Violation]:
    known: dict[tuple[str, str, str], Sent] = {}
    for message in evidence.sent_by_id.values():
        sequence = message.headers.get("sequence")
        if sequence is None:
            continue
        other = known.setdefault((message.channel, message.key, sequence), message)
        if other is not message:
            yield Violation("I7", f"{message.key} came to version {sequence} twice", [other.brief(), message.brief()])


def causality(evidence: Evidence) -> Iterator[Violation]:
    """I8: a reply answers a command that was there before it; a saga goes its path, moved on only by the reply that it
    awaited."""
    commands: dict[str, list[Sent]] = defaultdict(list)
    for message in evidence.sent_by_id.values():
        if message.saga and not message.answers:
            commands[message.saga].append(message)
        if message.answers:
            command = evidence.sent_by_id.get(message.answers)
            if command is None:
                yield Violation("I8", f"reply {message.id} answers nothing that was asked", [message.brief()])
            elif command.lsn > message.lsn:
                yield Violation("I8", f"reply {message.id} came before its command", [message.brief(), command.brief()])
    for saga, asked in commands.items():
        paths = _SAGA_PATHS.get(asked[0].headers.get("sagatype", ""), {})
        before: Sent | None = None
        for command in asked:
            word, previous = _word(command), _word(before) if before else ""
            # Asked again under a new id: a step that may not be refused was.
            again = before is not None and word == previous and command.cause is None
            if paths and not again and word not in paths.get(previous, set()):
                shown = [*([before.brief()] if before else []), command.brief()]
                yield Violation("I8", f"saga {saga} went from {previous or 'its start'} to {word}", shown)
            answered = _answered_by(command.cause, evidence)
            if before is not None and answered is not None and answered != before.id:
                shown = [before.brief(), {"reply": command.cause, "answers": answered}, command.brief()]
                yield Violation("I8", f"saga {saga} took a reply that it did not await", shown)
            before = command


def _word(message: Sent) -> str:
    return message.type.rsplit(".", 1)[-1]


def _answered_by(reply: str | None, evidence: Evidence) -> str | None:
    """The command that a reply answers, also of a reply that the nemesis has sent."""
    records = evidence.records_by_id.get(reply or "", ())
    return records[0].headers.get("inreplyto") if records else None


def convergence(evidence: Evidence) -> Iterator[Violation]:
    """I9: replicas end as their owners did, never go back, and never held what the owner never was."""
    published: dict[tuple[str, int], Sent] = {}
    for message in evidence.sent_by_id.values():
        if message.channel in {"consumer.events", "restaurant.events"}:
            published[message.key, int(message.headers["sequence"])] = message
    owners = {("consumer_replicas", "consumer", "consumers"), ("restaurant_replicas", "kitchen", "restaurants")}
    for replica, service, table in sorted(owners):
        seen: dict[str, int] = {}
        for commit, row in evidence.written("order", replica, "insert", "update"):
            name, version = row["id"], int(row["version"])
            shown = {"replica": name, "version": version, "commit": commit.number}
            if version < seen.get(name, 0):
                before = {"replica": name, "version": seen[name]}
                yield Violation("I9", f"replica {name} went back to version {version}", [before, shown])
            seen[name] = version
            event = published.get((name, version))
            if event is None or not _agree(row, event):
                yield Violation("I9", f"replica {name} holds what its owner never was", [shown])
        replicas = {row["id"]: row for row in evidence.rows("order", replica)}
        for row in evidence.rows(service, table):
            copy = replicas.get(row["id"])
            if copy is None or copy["version"] != row["version"]:
                shown = {"owner": row["id"], "version": row["version"]}
                has = {"replica": row["id"], "version": copy["version"] if copy else None}
                yield Violation("I9", f"replica {row['id']} has not caught up", [shown, has])


def _agree(row: Row, event: Sent) -> bool:
    if "status" in row:
        name = event.body["name"]
        return (row["first_name"], row["last_name"], row["status"]) == (
            name["firstName"],
            name["lastName"],
            event.body["status"],
        )
    return row["name"] == event.body["name"]


def rest(evidence: Evidence) -> Iterator[Violation]:
    """I10: a minute after the faults nothing is under way, and nothing is left over."""
    for what in evidence.end.get("unrest", []):
        yield Violation("I10", f"not at rest: {what}", [{"left": what}])
    for row in evidence.rows("order", "saga_instances"):
        if not row["finished"]:
            shown = {n: row[n] for n in ("saga_id", "type", "state", "step", "attempts")}
            yield Violation("I10", f"saga {row['saga_id']} has not ended", [shown])
    for service in evidence.tables:
        for row in evidence.rows(service, "outbox"):
            yield Violation(
                "I10", f"{service}: message {row['message_id']} is still in the outbox", [{"id": row["message_id"]}]
            )
    for session in evidence.end.get("idle_in_transaction", []):
        yield Violation("I10", f"session {session['pid']} sits in a transaction", [session])
    for slot in evidence.end.get("slots", []):
        if slot["wal_status"] == "lost" or (slot["retained"] or 0) > _RETAINED_BYTES:
            yield Violation("I10", f"slot {slot['name']} keeps the log", [slot])
        elif not slot["active"]:
            yield Violation("I10", f"slot {slot['name']} is read by nobody", [slot])
