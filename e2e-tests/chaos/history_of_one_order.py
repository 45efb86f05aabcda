"""A hand-made history for the checker's tests: one consumer, one order, approved; every message and commit of it."""

import json
from typing import Any

from evidence import Commit, Evidence, Record, Row
from topology import SERVICES, SUBSCRIPTIONS

ORDER, SAGA, CONSUMER, RESTAURANT = "order-1", "saga-1", "consumer-1", "restaurant-1"
CREATE = "ftgo.order.CreateOrder"
_REPLIES = "order.create-order.replies"
_SUBSCRIBERS = {t: s for s in SUBSCRIPTIONS for t in s["topics"] if s["deduplicates"]}


class World:
    """Commits in the order in which they are told, messages published at once. Tests bend it afterwards."""

    def __init__(self) -> None:
        self.evidence = Evidence(run={"subscriptions": SUBSCRIPTIONS}, end={"rest_seconds": 3.0})
        self.evidence.commits = {service: [] for service in SERVICES}
        self.evidence.tables = {service: {} for service in SERVICES}
        self._lsn = 0
        self._position = 0

    def commit(self, service: str, *changes: tuple[str, str, Row]) -> Commit:
        self._lsn += 10
        commits = self.evidence.commits[service]
        commit = Commit(service, len(commits), self._lsn, float(self._lsn), list(changes))
        commits.append(commit)
        return commit

    def message(self, name: str, kind: str, channel: str, key: str, body: Row, **headers: str) -> tuple[str, str, Row]:
        """An outbox row; also puts the record on the topic, unless a test takes it away."""
        self._position += 1
        all_headers = {"id": name, "type": kind, **headers}
        offset = sum(r.topic == channel for r in self.evidence.records)
        self.evidence.records.append(Record(channel, 0, offset, key, all_headers, json.dumps(body)))
        row = {
            "position": str(self._position),
            "message_id": name,
            "channel": channel,
            "key": key,
            "headers": json.dumps(all_headers),
            "body": "\\x" + json.dumps(body).encode().hex(),
        }
        return ("insert", "outbox", row)

    def claim(self, consumer: str, name: str) -> tuple[str, str, Row]:
        return ("insert", "processed_messages", {"consumer": consumer, "message_id": name})

    def asked(self, operation: str, what: str, method: str, path: str, key: str | None, **line: Any) -> None:
        """A request and its answer; ``line`` has kind, answer, status."""
        base = {"op": operation, "client": "customer-1", "what": what, "wall": 1.0, "about": ORDER}
        body = {"consumerId": CONSUMER}
        self.evidence.history.append(
            {**base, "kind": "invoke", "method": method, "path": path, "key": key, "body": body}
        )
        self.evidence.history.append({**base, **line})

    def put_table(self, service: str, table: str, *rows: Row) -> None:
        self.evidence.tables[service][table] = list(rows)


def one_order() -> World:
    """The clean history. Message ids: registered, created, verify, verified, ticket, ticketed, authorize, authorized,
    confirm, confirmed, approved, notify."""
    w = World()
    _register(w)
    _ask(w)
    w.commit(
        "order",
        ("insert", "orders", {"id": ORDER, "state": "APPROVAL_PENDING"}),
        ("insert", "order_history", {"order_id": ORDER, "version": "1", "state": "APPROVAL_PENDING"}),
        _saga("insert", 1, "verify consumer"),
        w.message("created", "ftgo.order.OrderCreated", "order.events", ORDER, {"orderId": ORDER}, sequence="1"),
        _command(w, "verify", "ftgo.consumer.VerifyConsumer", "consumer.commands", CONSUMER),
    )
    _answer(w, "consumer", "verify", "verified")
    _go_on(w, "verified", 2, _command(w, "ticket", "ftgo.kitchen.CreateTicket", "kitchen.commands", ORDER, "verified"))
    _answer(w, "kitchen", "ticket", "ticketed")
    authorize = _command(
        w, "authorize", "ftgo.accounting.AuthorizePayment", "accounting.commands", CONSUMER, "ticketed"
    )
    _go_on(w, "ticketed", 3, authorize)
    entry = {"order_id": ORDER, "consumer_id": CONSUMER, "type": "PAYMENT_AUTHORIZED", "change": 30.5, "version": 2}
    account = {"consumer_id": CONSUMER, "authorized": "30.50", "credit_limit": "1000.00"}
    _answer(w, "accounting", "authorize", "authorized", ("insert", "accounts", account))
    confirm = _command(w, "confirm", "ftgo.kitchen.ConfirmCreateTicket", "kitchen.commands", ORDER, "authorized")
    _go_on(w, "authorized", 4, confirm)
    _answer(w, "kitchen", "confirm", "confirmed")
    w.commit(
        "order",
        w.claim("order-sagas", "confirmed"),
        ("update", "orders", {"id": ORDER, "state": "APPROVED"}),
        ("insert", "order_history", {"order_id": ORDER, "version": "2", "state": "APPROVED"}),
        _saga("update", 5, "confirm ticket", finished="t"),
        w.message("approved", "ftgo.order.OrderApproved", "order.events", ORDER, {"orderId": ORDER}, sequence="2"),
        w.message("notify", "ftgo.consumer.NotifyConsumer", "consumer.commands", CONSUMER, {"orderId": ORDER}),
    )
    w.commit("consumer", w.claim("consumer", "notify"), ("insert", "outbound_mail", {"order_id": ORDER}))
    w.put_table(
        "order",
        "orders",
        {"id": ORDER, "consumer_id": CONSUMER, "state": "APPROVED", "version": 2, "order_total": 30.5},
    )
    w.put_table("order", "idempotency_keys", {"key": f"{CONSUMER}:key-1", "order_id": ORDER})
    finished = {"saga_id": SAGA, "type": CREATE, "state": "COMPLETED", "step": "confirm ticket", "attempts": 1}
    w.put_table("order", "saga_instances", finished | {"finished": True})
    w.put_table("kitchen", "tickets", {"id": ORDER, "state": "AWAITING_ACCEPTANCE"})
    w.put_table("accounting", "account_entries", entry)
    w.put_table("accounting", "accounts", {"consumer_id": CONSUMER, "authorized": 30.5})
    return w


def _register(w: World) -> None:
    body = {"name": {"firstName": "Ann", "lastName": "Lee"}, "status": "ACTIVE"}
    event = ("ftgo.consumer.ConsumerRegistered", "consumer.events", CONSUMER, body)
    w.commit("consumer", w.message("registered", *event, sequence="1"))
    replica = {"id": CONSUMER, "first_name": "Ann", "last_name": "Lee", "status": "ACTIVE"}
    w.commit("order", ("insert", "consumer_replicas", replica | {"version": "1"}))
    w.commit("accounting", w.claim("accounting-consumers", "registered"))
    w.put_table("consumer", "consumers", {"id": CONSUMER, "version": 1, "order_limit": 100.0})
    w.put_table("order", "consumer_replicas", {"id": CONSUMER, "version": 1})


def _ask(w: World) -> None:
    answer = {"orderId": ORDER, "state": "APPROVAL_PENDING"}
    w.asked("op-1", "create", "POST", "/orders", "key-1", kind="ok", status=202, answer=answer)
    read = {"orderId": ORDER, "state": "APPROVED", "version": 2}
    w.asked("op-2", "read", "GET", f"/orders/{ORDER}", None, kind="ok", status=200, answer=read)


def _saga(operation: str, version: int, step: str, finished: str = "f") -> tuple[str, str, Row]:
    data = json.dumps({"orderId": ORDER})
    row = {"saga_id": SAGA, "version": str(version), "step": step, "state": "RUNNING", "finished": finished}
    return (operation, "saga_instances", row | {"data": data})


def _command(w: World, name: str, kind: str, channel: str, key: str, cause: str | None = None) -> tuple[str, str, Row]:
    headers = {"sagaid": SAGA, "sagatype": CREATE, "replychannel": _REPLIES}
    return w.message(
        name, kind, channel, key, {"orderId": ORDER}, **headers, **({"causationid": cause} if cause else {})
    )


def _answer(w: World, service: str, command: str, reply: str, *changes: tuple[str, str, Row]) -> None:
    headers = {"sagaid": SAGA, "inreplyto": command, "causationid": command}
    answer = w.message(reply, "ftgo.messaging.Success", _REPLIES, SAGA, {}, **headers)
    w.commit(service, w.claim(service, command), *changes, answer)


def _go_on(w: World, reply: str, version: int, command: tuple[str, str, Row]) -> None:
    w.commit("order", w.claim("order-sagas", reply), _saga("update", version, "next"), command)
