"""The kitchen on a real PostgreSQL: the sagas' commands in batches, the REST API, both at once."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from ftgo_contracts.channels import KITCHEN_COMMANDS
from ftgo_contracts.kitchen import commands as c
from ftgo_kitchen.messaging.command_handlers import COMMANDS
from ftgo_messaging import new_id
from ftgo_messaging.consumer.batch import BatchProcessor
from ftgo_messaging.messages import codec
from ftgo_messaging.messages import message as m
from ftgo_messaging.messages.registry import by_class
from ftgo_messaging.testing.eventually import eventually
from ftgo_messaging.transports.port import Record
from ftgo_service_kit.service import Service
from sqlalchemy import text

LINES = (c.TicketLineItem("1", "Chicken Vindaloo", 2),)
LATER = "2100-01-01T20:00:00+02:00"
ADDRESS = {"street1": "1 High Street", "city": "Oakland", "state": "CA", "zip": "94611"}


def menu(*items: tuple[str, str, str]) -> dict[str, Any]:
    return {"menuItems": [{"id": i, "name": name, "price": price} for i, name, price in items]}


def body(**changes: Any) -> dict[str, Any]:
    return {"name": "Ajanta", "address": ADDRESS, "menu": menu(("1", "Chicken Vindaloo", "12.34"))} | changes


@pytest.fixture
async def restaurant(http) -> str:
    answer = await http.post("/restaurants", json=body())
    assert answer.status_code == 201
    return answer.json()["id"]


def received(command: Any, saga: str | None = None) -> Record:
    kind = by_class(type(command))
    (reply_channel,) = kind.reply_channels
    headers = {
        m.ID: new_id(),
        m.SOURCE: "order",
        m.TYPE: kind.name,
        m.SAGA_ID: saga or new_id(),
        m.REPLY_CHANNEL: reply_channel,
    }
    key = KITCHEN_COMMANDS.key(command)
    encoded = [(name, value.encode()) for name, value in headers.items()]
    return Record(KITCHEN_COMMANDS.name, key.encode(), encoded, codec.encode(command), f"{KITCHEN_COMMANDS.name}/0@0")


async def outbox(service: Service, where: str, **values: Any) -> list[tuple[str, str, Any]]:
    """(type, sequence, body) of the messages, in the order of the outbox."""
    query = text(f"SELECT headers->>'type', headers->>'sequence', body FROM outbox WHERE {where} ORDER BY position")
    async with service.engine.connect() as connection:
        return [
            (row[0].rsplit(".", 1)[1], row[1], codec.decode(row[2], dict))
            for row in await connection.execute(query, values)
        ]


async def ask(service: Service, *commands: Record) -> list[list[tuple[str, str | None]]]:
    """Handle the commands as one batch. Returns the replies of each: (type, reason)."""
    await BatchProcessor(COMMANDS, service.transactions).process(commands)
    return [await replies(service, command) for command in commands]


async def replies(service: Service, command: Record) -> list[tuple[str, str | None]]:
    message_id = dict(command.headers)[m.ID].decode()
    found = await outbox(service, "headers->>'inreplyto' = :id", id=message_id)
    return [(name, content.get("reason")) for name, _, content in found]


async def events(service: Service, subject: str) -> list[tuple[str, str, Any]]:
    return await outbox(service, "key = :key AND headers->>'messagekind' = 'event'", key=subject)


def create(order: str, restaurant: str) -> Record:
    return received(c.CreateTicket(order_id=order, restaurant_id=restaurant, line_items=LINES))


async def tickets(service: Service, restaurant: str, number: int = 1) -> Sequence[str]:
    """Tickets that await acceptance."""
    orders = [new_id() for _ in range(number)]
    confirms = [received(c.ConfirmCreateTicket(ticket_id=order)) for order in orders]
    await ask(service, *(create(order, restaurant) for order in orders), *confirms)
    return orders


# -- restaurants ---------------------------------------------------------------------------------------------------


async def test_a_restaurant_and_its_menus(service, http):
    opened = await http.post("/restaurants", json=body())
    path = opened.headers["location"]
    new_menu = menu(("1", "Chicken Vindaloo", "13"), ("2", "Naan", "2.5"))
    for _ in range(2):  # the same menu again is no change
        revised = await http.put(f"{path}/menu", json={"menu": new_menu})
        assert (revised.status_code, revised.json()["version"]) == (200, 2)
    read = (await http.get(path)).json()
    assert read == revised.json()
    assert read["menu"] == menu(("1", "Chicken Vindaloo", "13.00"), ("2", "Naan", "2.50"))
    assert read["address"] == ADDRESS | {"street2": None}
    told = await events(service, opened.json()["id"])
    assert [(name, version) for name, version, _ in told] == [
        ("RestaurantCreated", "1"),
        ("RestaurantMenuRevised", "2"),
    ]
    assert [item["price"] for item in told[1][2]["menuItems"]] == ["13.00", "2.50"]
    assert [content["address"] for _, _, content in told] == [ADDRESS, ADDRESS]


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"name": ""}, "name"),
        ({"name": "x" * 201}, "name"),
        ({"name": "a\u0000"}, "name"),
        ({"stars": 3}, "stars"),
        ({"address": ADDRESS | {"planet": "Earth"}}, "address.planet"),
        ({"address": {}}, "address.street1"),
        ({"menu": menu()}, "menu.menuItems"),
        ({"menu": menu(*((str(i), "x", "1") for i in range(101)))}, "menu.menuItems"),
        ({"menu": menu(("1", "x", "1.234"))}, "menu.menuItems.0.price"),
        ({"menu": menu(("1", "x", "-1"))}, "menu.menuItems.0.price"),
        ({"menu": {"menuItems": [{"id": "1", "name": "x", "price": 1}]}}, "menu.menuItems.0.price"),
    ],
)
async def test_a_wrong_restaurant_names_the_field(http, changes, field):
    answer = await http.post("/restaurants", json=body(**changes))
    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")
    assert field in [error["field"] for error in answer.json()["errors"]]


async def test_a_full_menu_is_accepted_and_a_doubled_id_is_not(http, restaurant):
    full = menu(*((str(i), "x" * 200, "1") for i in range(100)))
    assert (await http.put(f"/restaurants/{restaurant}/menu", json={"menu": full})).status_code == 200
    doubled = menu(("1", "x", "1"), ("1", "y", "2"))
    for answer in (
        await http.post("/restaurants", json=body(menu=doubled)),
        await http.put(f"/restaurants/{restaurant}/menu", json={"menu": doubled}),
    ):
        assert (answer.status_code, answer.json()["type"]) == (422, "urn:ftgo:invalid-menu")


async def test_what_does_not_exist(http):
    nobody = new_id()
    answers = [
        await http.get(f"/restaurants/{nobody}"),
        await http.put(f"/restaurants/{nobody}/menu", json={"menu": menu(("1", "x", "1"))}),
        await http.get(f"/tickets/{nobody}"),
        await http.post(f"/tickets/{nobody}/accept", json={"readyBy": LATER}),
        await http.post(f"/tickets/{nobody}/ready"),
    ]
    assert [answer.status_code for answer in answers] == [404] * 5
    assert {answer.json()["type"] for answer in answers} == {
        "urn:ftgo:restaurant-not-found",
        "urn:ftgo:ticket-not-found",
    }
    assert (await http.get("/tickets/17")).status_code == 422


# -- tickets over HTTP -----------------------------------------------------------------------------------------------


async def test_the_way_of_a_ticket(service, http, restaurant):
    (order,) = await tickets(service, restaurant)
    accepted = await http.post(f"/tickets/{order}/accept", json={"readyBy": LATER})
    assert (accepted.status_code, accepted.json()["state"]) == (200, "ACCEPTED")
    for verb, state in (("preparing", "PREPARING"), ("ready", "READY_FOR_PICKUP"), ("picked-up", "PICKED_UP")):
        answer = await http.post(f"/tickets/{order}/{verb}")
        assert (answer.status_code, answer.json()["state"]) == (200, state)
    ticket = (await http.get(f"/tickets/{order}")).json()
    assert (ticket["id"], ticket["restaurantId"], ticket["version"]) == (order, restaurant, 6)
    assert ticket["readyBy"] == "2100-01-01T18:00:00Z"
    assert ticket["lineItems"] == [{"menuItemId": "1", "name": "Chicken Vindaloo", "quantity": 2}]
    assert [entry["state"] for entry in ticket["history"]] == [
        "CREATE_PENDING",
        "AWAITING_ACCEPTANCE",
        "ACCEPTED",
        "PREPARING",
        "READY_FOR_PICKUP",
        "PICKED_UP",
    ]
    times = [entry["at"] for entry in ticket["history"]]
    assert times == sorted(times)
    told = await events(service, order)
    assert [(name, version) for name, version, _ in told] == [
        ("TicketCreated", "2"),
        ("TicketAccepted", "3"),
        ("TicketPreparationStarted", "4"),
        ("TicketReadyForPickup", "5"),
        ("TicketPickedUp", "6"),
    ]
    assert told[1][2]["readyBy"] == "2100-01-01T18:00:00Z"


async def test_a_step_in_a_wrong_state_changes_nothing(service, http, restaurant):
    (order,) = await tickets(service, restaurant)
    before = (await http.get(f"/tickets/{order}")).json()
    for verb in ("preparing", "ready", "picked-up"):
        answer = await http.post(f"/tickets/{order}/{verb}")
        assert (answer.status_code, answer.headers["content-type"]) == (409, "application/problem+json")
        assert (answer.json()["type"], answer.json()["state"]) == ("urn:ftgo:wrong-state", "AWAITING_ACCEPTANCE")
    assert (await http.get(f"/tickets/{order}")).json() == before


@pytest.mark.parametrize(
    "ready_by",
    [
        "2020-01-01T00:00:00Z",
        "2100-01-01T00:00:00",
        "9999-12-31T23:59:59-12:00",
        "0001-01-01T00:00:00+14:00",
        "x",
        None,
    ],
)
async def test_a_wrong_ready_by(service, http, restaurant, ready_by):
    (order,) = await tickets(service, restaurant)
    answer = await http.post(f"/tickets/{order}/accept", json={"readyBy": ready_by})
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith("readyBy: ")


async def test_pages_of_tickets_neither_skip_nor_repeat(service, http, restaurant):
    orders = await tickets(service, restaurant, 7)
    await http.post(f"/tickets/{orders[3]}/accept", json={"readyBy": LATER})
    seen: list[str] = []
    query: dict[str, Any] = {"restaurantId": restaurant, "limit": 3}
    for expected in (3, 3, 1):
        page = (await http.get("/tickets", params=query)).json()
        assert len(page["tickets"]) == expected
        seen += [ticket["id"] for ticket in page["tickets"]]
        query["cursor"] = page["next"]
    assert (seen, page["next"]) == (sorted(orders), None)
    accepted = (await http.get("/tickets", params={"restaurantId": restaurant, "state": "ACCEPTED"})).json()
    assert [(t["id"], len(t["history"])) for t in accepted["tickets"]] == [(orders[3], 3)]
    assert (await http.get("/tickets", params={"state": "EATEN"})).status_code == 422
    assert (await http.get("/tickets", params={"cursor": "x"})).json()["type"] == "urn:ftgo:bad-cursor"


# -- the commands of the sagas ---------------------------------------------------------------------------------------


async def test_a_ticket_is_made_once_and_answered_every_time(service, http, restaurant):
    order = new_id()
    first, again = create(order, restaurant), create(order, restaurant)
    assert await ask(service, first, first, again) == [[("TicketCreated", None)]] * 3
    assert (await http.get(f"/tickets/{order}")).json()["version"] == 1


async def test_an_unknown_restaurant_is_refused_and_leaves_nothing(service, http):
    order = new_id()
    assert await ask(service, create(order, new_id())) == [[("TicketRefused", "UNKNOWN_RESTAURANT")]]
    assert (await http.get(f"/tickets/{order}")).status_code == 404


@pytest.mark.parametrize("together", [True, False])
async def test_the_creation_that_comes_after_its_compensation_is_refused(service, http, restaurant, together):
    """Whether both are in one batch or the creation comes much later."""
    order = new_id()
    commands = [received(c.CancelCreateTicket(ticket_id=order)), create(order, restaurant)]
    if together:
        answers = await ask(service, *commands)
    else:
        answers = [(await ask(service, command))[0] for command in commands]
    assert answers == [[("Success", None)], [("TicketRefused", "CANCELLED")]]
    confirmed = await ask(service, received(c.ConfirmCreateTicket(ticket_id=order)))
    assert confirmed == [[("Failure", "WRONG_STATE")]]
    assert (await http.get(f"/tickets/{order}")).json()["state"] == "CANCELLED"
    assert await events(service, order) == []


async def test_a_refusal_in_a_batch_touches_no_other_command(service, http, restaurant):
    first, second = await tickets(service, restaurant, 2)
    ids, cancel, revise = {"restaurant_id": restaurant}, new_id(), new_id()
    answers = await ask(
        service,
        received(c.BeginCancelTicket(order_id=first, **ids), cancel),
        received(c.BeginReviseTicket(order_id=first, revised_line_items=(), **ids)),
        received(c.BeginCancelTicket(order_id=new_id(), **ids)),
        received(c.BeginReviseTicket(order_id=second, revised_line_items=LINES, **ids), revise),
        received(c.ConfirmCancelTicket(order_id=first, **ids), cancel),
        received(c.UndoBeginReviseTicket(order_id=second, **ids), revise),
        received(c.UndoBeginCancelTicket(order_id=new_id(), **ids)),
    )
    done = [("Success", None)]
    assert answers == [done, [("Failure", "WRONG_STATE")], [("Failure", "TICKET_NOT_FOUND")], done, done, done, done]
    states = [(await http.get(f"/tickets/{order}")).json()["state"] for order in (first, second)]
    assert states == ["CANCELLED", "AWAITING_ACCEPTANCE"]
    assert [name for name, _, _ in await events(service, first)] == ["TicketCreated", "TicketCancelled"]


async def test_a_revision_takes_the_new_lines(service, http, restaurant):
    (order,) = await tickets(service, restaurant)
    lines = (c.TicketLineItem("1", "Chicken Vindaloo", 1), c.TicketLineItem("2", "Naan", 3))
    ids, saga = {"order_id": order, "restaurant_id": restaurant}, new_id()
    await ask(service, received(c.BeginReviseTicket(**ids, revised_line_items=lines), saga))
    pending = (await http.get(f"/tickets/{order}")).json()
    assert (pending["state"], len(pending["lineItems"])) == ("REVISION_PENDING", 1)
    await ask(service, received(c.ConfirmReviseTicket(**ids, revised_line_items=lines), saga))
    revised = (await http.get(f"/tickets/{order}")).json()
    assert (revised["state"], [item["quantity"] for item in revised["lineItems"]]) == ("AWAITING_ACCEPTANCE", [1, 3])


async def test_a_compensation_before_its_beginning_makes_the_beginning_harmless(service, http, restaurant):
    (order,) = await tickets(service, restaurant)
    ids, saga = {"order_id": order, "restaurant_id": restaurant}, new_id()
    before = (await http.get(f"/tickets/{order}")).json()
    undo, begin = received(c.UndoBeginCancelTicket(**ids), saga), received(c.BeginCancelTicket(**ids), saga)
    assert await ask(service, undo, begin) == [[("Success", None)], [("Failure", "WRONG_STATE")]]
    assert (await http.get(f"/tickets/{order}")).json() == before


@pytest.mark.parametrize("cook_first", [True, False])
async def test_a_cook_and_a_saga_at_once(service, http, restaurant, cook_first):
    """Accept and BeginCancel queue for the same row: whoever is second sees what the first has done, and an undo leads
    back to just that. Read without a lock, the second would decide on a state that is gone: the cook gets a 500."""
    (order,) = await tickets(service, restaurant)
    ids, change = {"order_id": order, "restaurant_id": restaurant}, new_id()
    cook = http.post(f"/tickets/{order}/accept", json={"readyBy": LATER})
    saga = ask(service, received(c.BeginCancelTicket(**ids), change))

    async def queue(work: Any, length: int) -> asyncio.Task[Any]:
        task = asyncio.create_task(work)
        await eventually(lambda: waiting(service, length))
        return task

    async with service.engine.begin() as connection:
        await connection.execute(text("SELECT 1 FROM tickets WHERE id = :id FOR UPDATE"), {"id": order})
        first = await queue(cook if cook_first else saga, 1)
        second = await queue(saga if cook_first else cook, 2)
    accepted, begun = (await first, await second) if cook_first else reversed((await first, await second))

    assert (accepted.status_code, begun) == (200 if cook_first else 409, [[("Success", None)]])
    await ask(service, received(c.UndoBeginCancelTicket(**ids), change))
    ticket = (await http.get(f"/tickets/{order}")).json()
    assert ticket["state"] == ("ACCEPTED" if cook_first else "AWAITING_ACCEPTANCE")
    assert len(ticket["history"]) == ticket["version"]


async def waiting(service: Service, number: int) -> None:
    query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    async with service.engine.connect() as connection:
        assert (await connection.execute(text(query))).scalar_one() == number
