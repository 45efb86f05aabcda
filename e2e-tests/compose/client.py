"""A client outside of the containers: ``client.py ORDER_PORT place N | pending SECONDS | settled STATE | attack N``.

``place`` prints the ids of N orders; ``pending`` and ``settled`` read ids; ``attack`` places an order while N
connections of each kind of bad client are open. Standard library only.
"""

import contextlib
import json
import os
import resource
import socket
import sys
import time
import urllib.error
import urllib.request
from datetime import UTC, datetime, timedelta
from typing import Any

DEADLINE_SECONDS = 120
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def ask(port: int | str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    data = None if body is None else json.dumps(body).encode()
    headers = {"content-type": "application/json"}
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data, headers)
    with OPENER.open(request, timeout=15) as answer:
        content: dict[str, Any] = json.load(answer)
    return content


def place(port: str, count: int) -> None:
    consumer = ask(
        os.environ["FTGO_CONSUMER_PORT"],
        "/consumers",
        {"name": {"firstName": "Ida", "lastName": "Outside"}, "email": "ida@example.com"},
    )["consumerId"]
    restaurant = known_restaurant(port)
    for _ in range(count):
        body = {
            "consumerId": consumer,
            "restaurantId": restaurant,
            "deliveryTime": (datetime.now(UTC) + timedelta(hours=1)).isoformat(),
            "deliveryAddress": {"street1": "1 Main Street", "city": "Oakland", "state": "CA", "zip": "94612"},
            "lineItems": [{"menuItemId": "1", "quantity": 1}],
        }
        print(ask(port, "/orders", body)["orderId"])


def known_restaurant(port: str) -> str:
    """One that order has heard of; remembered, because Kafka may be away when it is asked for again."""
    file = os.environ["FTGO_E2E_RESTAURANT"]
    if os.path.exists(file):
        with open(file) as remembered:
            return remembered.read()
    menu = {"menuItems": [{"id": "1", "name": "Soup", "price": "5.00"}]}
    address = {"street1": "2 Main Street", "city": "Oakland", "state": "CA", "zip": "94612"}
    body = {"name": "Outside", "address": address, "menu": menu}
    made: str = ask(os.environ["FTGO_KITCHEN_PORT"], "/restaurants", body)["id"]
    deadline = time.monotonic() + DEADLINE_SECONDS
    while True:
        try:
            ask(port, f"/restaurants/{made}")
        except urllib.error.HTTPError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)
        else:
            break
    with open(file, "w") as remembered:
        remembered.write(made)
    return made


def state(port: str, order: str) -> str:
    return str(ask(port, f"/orders/{order}")["state"])


def pending(port: str, orders: list[str], seconds: float) -> None:
    """None of them may settle within that time: somebody whom they need is away."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        settled = [order for order in orders if state(port, order) != "APPROVAL_PENDING"]
        if settled:
            sys.exit(f"settled although a participant is away: {settled}")
        time.sleep(0.2)


def settled(port: str, orders: list[str], expected: str) -> None:
    """All of them settle in that state before the deadline. The service itself may be starting."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    states: dict[str, str] = {}
    while time.monotonic() < deadline:
        try:
            states = {order: state(port, order) for order in orders}
        except OSError as error:
            states = {"error": str(error)}
        if set(states.values()) == {expected}:
            return
        time.sleep(0.2)
    sys.exit(f"not {expected} within {DEADLINE_SECONDS} s: {states}")


_HEAD = b"POST /orders HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
_BAD_CLIENTS = {
    "slow bodies": _HEAD + b"Content-Length: 60000\r\n\r\n" + b"x" * 50_000,
    "slow heads": _HEAD + b"X: " + b"x" * 30_000,
    "requests behind requests": b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n" * 3_000,
    "answers that nobody reads": b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "larger heads than any": _HEAD + b"X: x\r\n" * 20_000,
}


def attack(port: str, count: int) -> None:
    """Prints the ids of the orders that were placed meanwhile, one for each kind of bad client."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (count + 100, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    for sent in _BAD_CLIENTS.values():
        connections = [_bad_client(int(port), sent) for _ in range(count)]
        place(port, 1)
        for connection in connections:
            connection.close()


def _bad_client(port: int, sent: bytes) -> socket.socket:
    """Sends as much as is taken at once, reads nothing, and stays."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=15)
    connection.setblocking(False)
    with contextlib.suppress(OSError):  # closed by the service already
        connection.send(sent)
    return connection


def main() -> None:
    port, verb, argument = sys.argv[1:]
    if verb == "place":
        place(port, int(argument))
        return
    if verb == "attack":
        attack(port, int(argument))
        return
    orders = sys.stdin.read().split()
    if not orders:
        sys.exit("no orders to look at")
    if verb == "pending":
        pending(port, orders, float(argument))
    else:
        settled(port, orders, argument)


if __name__ == "__main__":
    main()
