"""What was done, by the databases themselves."""

from cluster import Failed, kubectl

SERVICES = ("consumer", "order", "kitchen", "accounting")


def sql(service: str, statement: str) -> str:
    """What psql prints, a line for each row. Raises Failed while PostgreSQL is away."""
    command = ["psql", "--username=postgres", f"--dbname=ftgo_{service}", "-Atc", statement]
    return kubectl("exec", "postgres-0", "--", *command).strip()


def dead_letters() -> dict[str, str]:
    return {s: sql(s, "SELECT count(*) FROM dead_letters") for s in SERVICES}


def unsettled(orders: list[str]) -> int:
    """How many of them are not approved. All of them, as long as PostgreSQL is away."""
    among = ",".join(f"'{order}'" for order in orders)
    pending = f"SELECT count(*) FROM orders WHERE id IN ({among}) AND state <> 'APPROVED'"  # noqa: S608
    try:
        return int(sql("order", pending))
    except Failed:
        return len(orders)


def check_effects(known_dead_letters: dict[str, str]) -> None:
    """Nothing waits, nothing was set aside since, and nothing was done twice or not at all. Raises Failed."""
    if {*(waiting := {s: sql(s, "SELECT count(*) FROM outbox") for s in SERVICES}).values()} != {"0"}:
        raise Failed(f"in the outboxes: {waiting}")
    if (now := dead_letters()) != known_dead_letters:
        raise Failed(f"dead letters: {now}, before {known_dead_letters}")
    approved = _ids("order", "SELECT id FROM orders WHERE state = 'APPROVED'")
    charged = _ids("accounting", "SELECT order_id FROM authorizations")
    cooked = _ids("kitchen", "SELECT id FROM tickets WHERE state <> 'CREATE_PENDING'")
    for what, found in (("charged", charged), ("in the kitchen", cooked)):
        if missing := approved - found:
            raise Failed(f"{len(missing)} approved orders are not {what}: {sorted(missing)[:3]}")
    entries = (
        "SELECT order_id FROM account_entries WHERE type = 'PAYMENT_AUTHORIZED' GROUP BY order_id HAVING count(*) > 1"
    )
    if twice := _ids("accounting", entries):
        raise Failed(f"{len(twice)} orders are charged twice: {sorted(twice)[:3]}")


def _ids(service: str, statement: str) -> set[str]:
    return set(sql(service, statement).split())
