"""Invariants of the business: what became of orders, money and tickets, and what clients were told."""

import json
from collections import defaultdict
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from evidence import Evidence, Row
from violation import Violation

_FINAL = {"APPROVED", "REJECTED", "CANCELLED"}
_NEXT = {
    "": {"APPROVAL_PENDING"},
    "APPROVAL_PENDING": {"APPROVED", "REJECTED"},
    "APPROVED": {"CANCEL_PENDING", "REVISION_PENDING"},
    "CANCEL_PENDING": {"CANCELLED", "APPROVED"},
    "REVISION_PENDING": {"APPROVED"},
    "REJECTED": set(),
    "CANCELLED": set(),
}
_COOKED = {"AWAITING_ACCEPTANCE", "ACCEPTED", "PREPARING", "READY_FOR_PICKUP", "PICKED_UP"}


def answers(evidence: Evidence, *kinds: str) -> Iterator[Row]:
    """Completions of requests that create orders."""
    return (line for line in evidence.history if line["kind"] in kinds and line["what"] == "create")


def asked(evidence: Evidence) -> dict[str, Row]:
    """Requests by operation: what was sent."""
    return {line["op"]: line for line in evidence.history if line["kind"] == "invoke"}


def accepted(evidence: Evidence) -> dict[str, Row]:
    """Order id -> the first answer that promised the order."""
    found: dict[str, Row] = {}
    for line in answers(evidence, "ok"):
        found.setdefault(line["answer"]["orderId"], line)
    return found


def brief(line: Row) -> Row:
    names = ("client", "what", "kind", "status", "about", "key", "answer")
    shown = {name: line[name] for name in names if line.get(name) is not None}
    if isinstance(shown.get("answer"), dict):
        shown["answer"] = {n: v for n, v in shown["answer"].items() if n in {"orderId", "state", "version", "type"}}
    return shown


def outcome(evidence: Evidence) -> Iterator[Violation]:
    """I1: an accepted order exists and ends in one final state, by legal steps; a refused one does not exist."""
    orders = {row["id"]: row for row in evidence.rows("order", "orders")}
    for order, line in accepted(evidence).items():
        if order not in orders:
            yield Violation("I1", f"order {order} was accepted and does not exist", [brief(line)])
    for order, row in orders.items():
        if row["state"] not in _FINAL:
            shown = {"order": order, "state": row["state"], "version": row["version"]}
            yield Violation("I1", f"order {order} ended in {row['state']}", [shown])
    yield from _transitions(evidence, orders)
    yield from _refused(evidence, orders)


def _transitions(evidence: Evidence, orders: dict[str, Row]) -> Iterator[Violation]:
    last: dict[str, tuple[int, str]] = {}
    for commit, row in evidence.written("order", "order_history", "insert"):
        order, version, state = row["order_id"], int(row["version"]), row["state"]
        before_version, before = last.get(order, (0, ""))
        if version != before_version + 1 or state not in _NEXT[before]:
            steps = [
                {"order": order, "version": before_version, "state": before or "not there"},
                {"order": order, "version": version, "state": state, "commit": commit.number},
            ]
            yield Violation("I1", f"order {order} went from {before or 'nothing'} to {state}", steps)
        last[order] = (version, state)
    for order, (version, state) in last.items():
        row = orders.get(order)
        if row is None or (row["state"], row["version"]) != (state, version):
            shown = {"order": order, "history says": state, "row says": row and row["state"]}
            yield Violation("I1", f"order {order}: its row and its history differ", [shown])


def _refused(evidence: Evidence, orders: dict[str, Row]) -> Iterator[Violation]:
    requests = asked(evidence)
    outcomes: dict[str, list[Row]] = defaultdict(list)
    for line in answers(evidence, "ok", "fail", "unknown"):
        request = requests[line["op"]]
        outcomes[request["key"] or request["path"].rsplit("/", 1)[1]].append(line)
    keys = {row["key"].split(":", 1)[1]: row["order_id"] for row in evidence.rows("order", "idempotency_keys")}
    for name, lines in outcomes.items():
        if {line["kind"] for line in lines} == {"fail"} and (name in keys or name in orders):
            order = keys.get(name, name)
            yield Violation("I1", f"order {order} was refused and exists", [brief(lines[0]), {"order": order}])


def _money(value: Any) -> Decimal:
    return Decimal(str(value)).quantize(Decimal("0.01"))


def money(evidence: Evidence) -> Iterator[Violation]:
    """I2: each approved order has its total set aside exactly once, every other one nothing; limits hold always, and
    prices as long as a dish stays in an order."""
    entries: dict[str, list[Row]] = defaultdict(list)
    for row in evidence.rows("accounting", "account_entries"):
        if row["order_id"]:
            entries[row["order_id"]].append(row)
    for row in evidence.rows("order", "orders"):
        mine = entries.pop(row["id"], [])
        held = sum((_money(e["change"]) for e in mine), Decimal())
        due = _money(row["order_total"]) if row["state"] == "APPROVED" else Decimal()
        if row["state"] in _FINAL and held != due:
            shown = [{"order": row["id"], "state": row["state"], "total": str(row["order_total"])}]
            shown += [{"entry": e["type"], "change": str(e["change"]), "version": e["version"]} for e in mine]
            yield Violation("I2", f"order {row['id']} is {row['state']}: {due} are due, {held} are held", shown)
        if sum(e["type"] == "PAYMENT_AUTHORIZED" for e in mine) > 1:
            shown = [{"entry": e["type"], "version": e["version"]} for e in mine if e["type"] == "PAYMENT_AUTHORIZED"]
            yield Violation("I2", f"order {row['id']} was charged twice", shown)
    for order, orphans in entries.items():
        held = sum((_money(e["change"]) for e in orphans), Decimal())
        if held:
            yield Violation("I2", f"{held} are held for order {order}, which does not exist", [{"order": order}])
    yield from _balances(evidence)
    yield from _order_limits(evidence)
    yield from _prices(evidence)


def _order_limits(evidence: Evidence) -> Iterator[Violation]:
    """No limit is ever changed, so that each order's newest total has to be within it, be it revised or not."""
    limits = {row["id"]: _money(row["order_limit"]) for row in evidence.rows("consumer", "consumers")}
    for row in evidence.rows("order", "orders"):
        limit, total = limits.get(row["consumer_id"]), _money(row["order_total"])
        if row["state"] == "APPROVED" and limit is not None and total > limit:
            shown = {"order": row["id"], "total": str(total), "limit": str(limit)}
            yield Violation("I2", f"order {row['id']} is beyond its consumer's order limit", [shown])


def _prices(evidence: Evidence) -> Iterator[Violation]:
    known: dict[str, dict[str, str]] = {}
    for commit, row in evidence.written("order", "orders", "insert", "update"):
        if not row.get("line_items"):
            continue
        prices = {line["menu_item_id"]: line["price"] for line in json.loads(row["line_items"])}
        before = known.get(row["id"], {})
        for dish in prices.keys() & before.keys():
            if prices[dish] != before[dish]:
                shown = {"order": row["id"], "dish": dish, "before": before[dish], "price": prices[dish]}
                yield Violation("I2", f"order {row['id']} pays another price", [shown | {"commit": commit.number}])
        known[row["id"]] = prices


def _balances(evidence: Evidence) -> Iterator[Violation]:
    sums: dict[str, Decimal] = defaultdict(Decimal)
    for row in evidence.rows("accounting", "account_entries"):
        sums[row["consumer_id"]] += _money(row["change"])
    for row in evidence.rows("accounting", "accounts"):
        if sums[row["consumer_id"]] != _money(row["authorized"]):
            shown = {
                "consumer": row["consumer_id"],
                "account": str(row["authorized"]),
                "entries": str(sums[row["consumer_id"]]),
            }
            yield Violation("I2", f"account {row['consumer_id']} is not the sum of its entries", [shown])
    for commit, row in evidence.written("accounting", "accounts"):
        if _money(row["authorized"]) > _money(row["credit_limit"]):
            shown = {n: row[n] for n in ("consumer_id", "authorized", "credit_limit")} | {"commit": commit.number}
            yield Violation("I2", f"account {row['consumer_id']} is beyond its limit", [shown])


def ticket(evidence: Evidence) -> Iterator[Violation]:
    """I3: the kitchen cooks an order exactly if it is approved."""
    tickets = {row["id"]: row for row in evidence.rows("kitchen", "tickets")}
    for row in evidence.rows("order", "orders"):
        found = tickets.pop(row["id"], None)
        state = found["state"] if found else "none"
        right = state in _COOKED if row["state"] == "APPROVED" else state in {"none", "CANCELLED"}
        if row["state"] in _FINAL and not right:
            shown = [{"order": row["id"], "state": row["state"]}, {"ticket": row["id"], "state": state}]
            yield Violation("I3", f"order {row['id']} is {row['state']}, its ticket {state}", shown)
    for name, row in tickets.items():
        if row["state"] != "CANCELLED":
            yield Violation("I3", f"ticket {name} belongs to no order", [{"ticket": name, "state": row["state"]}])


def semantic_lock(evidence: Evidence) -> Iterator[Violation]:
    """I11: one saga at a time works on an order, a pending order has one, and a saga's row never loses a change."""
    live: dict[str, set[str]] = defaultdict(set)
    orders: dict[str, str] = {}
    known: dict[str, tuple[int, Row]] = {}
    for commit in evidence.commits.get("order", []):
        sagas = [(op, row) for op, table, row in commit.changes if table == "saga_instances" and op != "delete"]
        for _, row in sorted(sagas, key=lambda change: change[0] == "insert"):  # ends before beginnings
            saga, version = row["saga_id"], int(row["version"])
            before_version, before = known.get(saga, (-1, row))
            same = all(row.get(name) == before.get(name) for name in ("state", "step", "awaited_command"))
            if version < before_version or (version == before_version and not same):
                shown = [{n: r.get(n) for n in ("saga_id", "version", "state", "step")} for r in (before, row)]
                yield Violation("I11", f"saga {saga} lost a change", [shown[0], shown[1] | {"commit": commit.number}])
            known[saga] = (version, row)
            if row.get("data"):
                orders[saga] = json.loads(row["data"])["orderId"]
            if saga not in orders:
                continue
            holders = live[orders[saga]]
            holders.discard(saga)
            if row["finished"] == "f":
                if holders:
                    shown = [{"order": orders[saga], "saga": s} for s in (*sorted(holders), saga)]
                    yield Violation("I11", f"two sagas hold order {orders[saga]}", shown)
                holders.add(saga)
        for row in commit.rows("orders", "insert", "update"):
            if row["state"] is not None and row["state"].endswith("_PENDING") and not live[row["id"]]:
                shown = {"order": row["id"], "state": row["state"], "commit": commit.number}
                yield Violation("I11", f"order {row['id']} is locked by no saga", [shown])


def idempotency(evidence: Evidence) -> Iterator[Violation]:
    """I12: equal client and key, equal answer; and no order that nobody may have asked for."""
    requests = asked(evidence)
    first: dict[tuple[str, str], Row] = {}
    open_keys: dict[str, set[str]] = defaultdict(set)
    for line in answers(evidence, "ok", "unknown"):
        request = requests[line["op"]]
        if not request["key"]:
            continue
        consumer, key = request["body"]["consumerId"], request["key"]
        if line["kind"] == "unknown":
            open_keys[consumer].add(key)
            continue
        known = first.setdefault((consumer, key), line)
        if known["answer"] != line["answer"]:
            yield Violation("I12", f"key {key} was answered in two ways", [brief(known), brief(line)])
    for consumer, key in first:
        open_keys[consumer].discard(key)
    puts = {r["path"].rsplit("/", 1)[1] for r in requests.values() if r["what"] == "create" and r["method"] == "PUT"}
    explained = puts | set(accepted(evidence))
    unexplained: dict[str, list[str]] = defaultdict(list)
    for row in evidence.rows("order", "orders"):
        if row["id"] not in explained:
            unexplained[row["consumer_id"]].append(row["id"])
    for consumer, found in unexplained.items():
        if len(found) > len(open_keys[consumer]):
            shown = [{"order": order, "consumer": consumer} for order in found[len(open_keys[consumer]) :]]
            yield Violation("I12", f"consumer {consumer} has an order that was never asked for", shown[:1])


def reads(evidence: Evidence) -> Iterator[Violation]:
    """I13: what a client sees of an order never goes back, and what it was promised is there."""
    seen: dict[tuple[str, str], tuple[int, Row]] = {}
    for line in evidence.history:
        answer, order = line.get("answer"), line.get("about")
        if line["what"] == "create" and line["kind"] == "ok":
            seen.setdefault((line["client"], answer["orderId"]), (1, line))
            continue
        if (line["what"] == "stream" and line["kind"] == "event") or (line["what"] == "read" and line["kind"] == "ok"):
            version = answer["version"]
        elif line["what"] == "read" and line.get("status") == 404:
            version = 0
        else:
            continue
        before, shown = seen.get((line["client"], order), (0, line))
        # A stream begins with the first change by design; only within one stream do ids have to grow.
        if version < before and line["what"] == "read":
            yield Violation(
                "I13", f"order {order}: version {before} was seen, then {version}", [brief(shown), brief(line)]
            )
        if version >= before:
            seen[line["client"], order] = (version, line)
    yield from _streams(evidence)


def _streams(evidence: Evidence) -> Iterator[Violation]:
    last: dict[str, Row] = {}
    for line in evidence.history:
        if line["kind"] == "event":
            before = last.get(line["op"])
            if before is not None and line["answer"]["version"] <= before["answer"]["version"]:
                yield Violation("I13", f"stream of order {line['about']} went back", [brief(before), brief(line)])
            last[line["op"]] = line
