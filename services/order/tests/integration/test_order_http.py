"""The order service's REST API and replicas on a real PostgreSQL; Kafka is not needed for any of it."""

import asyncio
import json
import random
import uuid

import pytest
from ftgo_contracts.channels import CONSUMER_EVENTS, RESTAURANT_EVENTS
from ftgo_contracts.consumer.events import (
    ConsumerBlocked,
    ConsumerRegistered,
    ConsumerRenamed,
    ConsumerUnblocked,
    PersonName,
)
from ftgo_contracts.kitchen.events import MenuItem, RestaurantCreated, RestaurantMenuRevised
from ftgo_contracts.money import Money
from ftgo_messaging import Operation, new_id
from ftgo_messaging.consumer.batch import BatchProcessor
from ftgo_messaging.messages import codec
from ftgo_messaging.outbox import writer
from ftgo_messaging.testing.eventually import eventually
from ftgo_messaging.transports.port import Record
from ftgo_order.application import order_steps
from ftgo_order.messaging.event_handlers import REPLICAS
from ftgo_service_kit.service import Service
from prometheus_client import REGISTRY
from sqlalchemy import text


async def told(service: Service, event, version: int) -> None:
    """Hand an event to the replicas, as if it had come from Kafka."""
    subject = getattr(event, "restaurant_id", None) or event.consumer_id
    headers = writer.event_message(event, new_id(), "owner", None, subject, version).headers
    channel = RESTAURANT_EVENTS if hasattr(event, "restaurant_id") else CONSUMER_EVENTS
    record = Record(
        channel.name,
        subject.encode(),
        [(k, v.encode()) for k, v in headers.items()],
        codec.encode(event),
        f"{channel.name}/0@0",
    )
    await BatchProcessor(REPLICAS, service.transactions).process([record])


@pytest.fixture(scope="module")
async def restaurant(service: Service) -> str:
    items = (MenuItem("1", "Chicken Vindaloo", Money.of("12.34")), MenuItem("2", "Naan", Money.of("2.50")))
    event = RestaurantCreated(restaurant_id=new_id(), name="Ajanta", menu_items=items)
    await told(service, event, 1)
    return event.restaurant_id


def body(restaurant: str, consumer: str | None = None, **changes):
    return {
        "consumerId": consumer or new_id(),
        "restaurantId": restaurant,
        "deliveryTime": "2030-01-01T18:00:00+02:00",
        "deliveryAddress": {"street1": "1 Main Street", "city": "Oakland", "state": "CA", "zip": "94611"},
        "lineItems": [{"menuItemId": "1", "quantity": 5}],
    } | changes


async def approve(service: Service, order_id: str) -> None:
    await service.transactions.run_operation(Operation(lambda uow: order_steps.approve(order_id, uow)))


async def waited_for(service: Service) -> None:
    """Somebody waits for an order."""
    assert len(service.app.state.order_changes) > 0


async def created(http, restaurant, **headers) -> str:
    answer = await http.post("/orders", json=body(restaurant), headers=headers)
    assert answer.status_code == 202
    return answer.json()["orderId"]


async def test_an_order_is_accepted_and_can_be_read(http, restaurant):
    answer = await http.post("/orders", json=body(restaurant))
    assert answer.status_code == 202
    accepted = answer.json()
    assert accepted == {"orderId": accepted["orderId"], "state": "APPROVAL_PENDING", "orderTotal": "61.70"}
    read = await http.get(answer.headers["location"])
    order = read.json()
    assert (order["state"], order["version"], read.headers["etag"]) == ("APPROVAL_PENDING", 1, '"1"')
    assert order["lineItems"] == [{"menuItemId": "1", "name": "Chicken Vindaloo", "price": "12.34", "quantity": 5}]
    assert order["deliveryTime"] == "2030-01-01T16:00:00Z"
    assert order["restaurantName"] == "Ajanta"
    assert "rejection" not in order


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        (['"1"'], 304),
        (['W/"1"'], 304),
        (['"0", "1"'], 304),
        (['"0"', 'W/"1"'], 304),
        (["*"], 304),
        (['"0"', '"2"'], 200),
        (['"0, 1"'], 200),
    ],
)
async def test_a_client_that_has_this_version_gets_no_body(http, restaurant, lines, status):
    order_id = await created(http, restaurant)
    answer = await http.get(f"/orders/{order_id}", headers=[("If-None-Match", line) for line in lines])
    assert (answer.status_code, answer.headers["etag"]) == (status, '"1"')
    assert bool(answer.content) == (status == 200)


async def test_preferences_may_stand_in_several_lines(http, restaurant):
    order_id = await created(http, restaurant)
    preferences = [("Prefer", "respond-async"), ("Prefer", "wait=1")]
    answer = await http.get(f"/orders/{order_id}", headers=preferences)
    assert answer.headers["preference-applied"] == "wait=1"
    answer = await http.get(f"/orders/{order_id}", headers={"Prefer": 'foo="a, wait=2"'})
    assert "preference-applied" not in answer.headers


async def test_head_of_an_order_and_of_its_stream_are_the_headers_alone(http, restaurant):
    order_id = await created(http, restaurant)
    for path in (f"/orders/{order_id}", f"/orders?consumerId={new_id()}"):
        get, head = await http.get(path), await http.head(path)
        assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", str(len(get.content)))
        assert head.headers.get("etag") == get.headers.get("etag")
    stream = await http.head(f"/orders/{order_id}/events")  # the order is pending: a GET would go on for five minutes
    assert (stream.status_code, stream.content) == (200, b"")
    assert stream.headers["content-type"].startswith("text/event-stream")
    assert (await http.head(f"/orders/{new_id()}")).status_code == 404


async def test_two_idempotency_keys_are_none(http, restaurant):
    request = body(restaurant)
    keys = [("Idempotency-Key", "one"), ("Idempotency-Key", "two")]
    answer = await http.post("/orders", json=request, headers=keys)
    assert (answer.status_code, answer.json()["type"]) == (400, "urn:ftgo:repeated-header")
    same = [await http.post("/orders", json=request, headers=[keys[0]] * n) for n in (1, 2)]
    assert same[0].text == same[1].text


async def test_orders_are_counted_once_and_after_their_commit(http, service, restaurant):
    def counted() -> list[float]:
        names = [("ftgo_orders_placed_total", {})]
        names += [("ftgo_order_changes_total", {"state": state}) for state in ("APPROVED", "CANCEL_PENDING")]
        return [REGISTRY.get_sample_value(name, labels) or 0.0 for name, labels in names]

    before, request = counted(), body(restaurant)
    answers = [await http.post("/orders", json=request, headers={"Idempotency-Key": "counted"}) for _ in range(3)]
    await http.post("/orders", json=body(new_id()))  # refused
    order_id = answers[0].json()["orderId"]
    await approve(service, order_id)
    await approve(service, order_id)
    await http.post(f"/orders/{order_id}/cancel")
    await http.post(f"/orders/{order_id}/cancel")  # refused
    assert [after - old for after, old in zip(counted(), before, strict=True)] == [1, 1, 1]


async def test_the_messages_of_a_request_can_be_found_by_the_id_in_its_answer(http, service, restaurant):
    trace = uuid.uuid4().hex
    parent = {"traceparent": f"00-{trace}-00f067aa0ba902b7-01"}
    state = [("tracestate", "a=1"), ("tracestate", "b=2")]
    named = await http.post("/orders", json=body(restaurant), headers=[*parent.items(), *state])
    unnamed = await http.post("/orders", json=body(restaurant))
    assert named.headers["x-trace-id"] == trace
    conversation = str(uuid.UUID(unnamed.headers["x-trace-id"]))
    for header, value, count in (
        ("traceparent", trace, 2),
        ("tracestate", "a=1, b=2", 2),
        ("correlationid", conversation, 2),
    ):
        async with service.engine.connect() as connection:
            found = await connection.execute(
                text("SELECT count(*) FROM outbox WHERE position(:value IN CAST(headers AS json)->>:header) > 0"),
                {"header": header, "value": value},
            )
            assert found.scalar_one() == count, header


async def test_an_order_of_an_earlier_release_has_no_name_of_its_restaurant(http, service, restaurant):
    order_id = await created(http, restaurant)
    async with service.engine.begin() as connection:
        await connection.execute(text("UPDATE orders SET restaurant_name = NULL WHERE id = :id"), {"id": order_id})
    assert "restaurantName" not in (await http.get(f"/orders/{order_id}")).json()
    await approve(service, order_id)
    assert (await http.get(f"/orders/{order_id}")).json()["state"] == "APPROVED"


async def test_fifty_equal_posts_at_once_make_one_order(http, service, restaurant):
    request = body(restaurant)
    answers = await asyncio.gather(
        *(http.post("/orders", json=request, headers={"Idempotency-Key": "once"}) for _ in range(50))
    )
    assert {(a.status_code, a.text) for a in answers} == {(202, answers[0].text)}
    orders = (await http.get("/orders", params={"consumerId": request["consumerId"]})).json()["orders"]
    assert [o["orderId"] for o in orders] == [answers[0].json()["orderId"]]
    different = await http.post(
        "/orders",
        json=request | {"lineItems": [{"menuItemId": "2", "quantity": 1}]},
        headers={"Idempotency-Key": "once"},
    )
    assert (different.status_code, different.json()["type"]) == (422, "urn:ftgo:idempotency-key-reused")


async def test_the_last_moment_that_is_taken_comes_back_with_its_zone(http, restaurant):
    latest = "9998-12-31T23:59:59.999999Z"
    path = f"/orders/{new_id()}"
    made = await http.put(path, json=body(restaurant, deliveryTime=latest))
    read = await http.get(path)
    assert [made.json()["deliveryTime"], read.json()["deliveryTime"]] == [latest, latest]


async def test_twenty_equal_puts_at_once_make_one_order(http, restaurant):
    path, request = f"/orders/{new_id()}", body(restaurant)
    answers = await asyncio.gather(*(http.put(path, json=request) for _ in range(20)))
    assert sorted(a.status_code for a in answers) == [200] * 19 + [202]
    assert len({a.text for a in answers}) == 1
    different = await http.put(path, json=request | {"deliveryTime": "2030-01-01T19:00:00Z"})
    assert different.status_code == 409
    same_moment = await http.put(path, json=request | {"deliveryTime": "2030-01-01T16:00:00Z"})
    assert same_moment.status_code == 200


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"lineItems": []}, "lineItems"),
        ({"lineItems": [{"menuItemId": "1", "quantity": 0}]}, "lineItems.0.quantity"),
        ({"lineItems": [{"menuItemId": "1", "quantity": 101}]}, "lineItems.0.quantity"),
        ({"lineItems": [{"menuItemId": "1", "quantity": 1}] * 51}, "lineItems"),
        ({"lineItems": [{"menuItemId": "9", "quantity": 1}]}, "lineItems.0.menuItemId"),
        ({"deliveryTime": "tomorrow"}, "deliveryTime"),
        ({"deliveryTime": "9999-12-31T23:59:00-05:00"}, "deliveryTime"),
        ({"deliveryTime": "2020-01-01T18:00:00Z"}, "deliveryTime"),
        ({"deliveryTime": "0001-01-01T00:00:00Z"}, "deliveryTime"),
        ({"deliveryTime": 1}, "deliveryTime"),
        ({"deliveryTime": "20300101"}, "deliveryTime"),
        ({"consumerId": "1"}, "consumerId"),
        ({"extra": 1}, "extra"),
    ],
)
async def test_a_wrong_request_names_the_field(http, restaurant, changes, field):
    answer = await http.post("/orders", json=body(restaurant, **changes))
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert field in [e["field"] for e in answer.json()["errors"]]


async def test_an_unknown_restaurant_is_refused(http):
    answer = await http.post("/orders", json=body(new_id()))
    assert (answer.status_code, answer.json()["type"]) == (422, "urn:ftgo:unknown-restaurant")


async def test_a_consumer_known_to_be_blocked_is_refused_and_old_news_do_not_unblock(http, service, restaurant):
    consumer = new_id()
    name = PersonName("Asha", "Rao")
    await told(service, ConsumerBlocked(consumer_id=consumer, name=name, status="BLOCKED"), 2)
    await told(service, ConsumerRegistered(consumer_id=consumer, name=name, status="ACTIVE"), 1)
    replica = (await http.get(f"/consumers/{consumer}")).json()
    assert replica == {
        "consumerId": consumer,
        "name": {"firstName": "Asha", "lastName": "Rao"},
        "status": "BLOCKED",
        "version": 2,
    }
    answer = await http.post("/orders", json=body(restaurant, consumer))
    assert (answer.status_code, answer.json()["type"]) == (422, "urn:ftgo:consumer-blocked")


@pytest.mark.parametrize("seed", range(12))
async def test_replicas_converge_whatever_the_order_of_the_news(http, service, seed):
    """Some twice, in any order: the newest version stands, and never an older one after it."""
    shuffle = random.Random(seed)
    consumer, kitchen = new_id(), new_id()
    news = [
        (ConsumerRegistered, ConsumerRenamed, ConsumerBlocked, ConsumerUnblocked)[v % 4](
            consumer_id=consumer, name=PersonName("Asha", f"{v}"), status="BLOCKED" if v % 4 == 2 else "ACTIVE"
        )
        for v in range(1, 7)
    ]
    menus = [
        RestaurantMenuRevised(restaurant_id=kitchen, name=f"{v}", menu_items=(MenuItem("1", "Soup", Money.of(f"{v}")),))
        for v in range(1, 7)
    ]
    told_again = [*enumerate(news, 1), *enumerate(menus, 1)] * 2
    shuffle.shuffle(told_again)
    seen = 0
    for version, event in told_again:
        await told(service, event, version)
        if event in news:
            replica = (await http.get(f"/consumers/{consumer}")).json()
            assert replica["version"] >= seen
            seen = replica["version"]
    assert (replica["version"], replica["name"]["lastName"], replica["status"]) == (6, "6", "BLOCKED")
    restaurant = (await http.get(f"/restaurants/{kitchen}")).json()
    assert (restaurant["version"], restaurant["name"]) == (6, "6")
    assert restaurant["menu"]["menuItems"][0]["price"] == "6.00"


async def test_replicas_can_be_read(http, restaurant):
    replica = (await http.get(f"/restaurants/{restaurant}")).json()
    assert (replica["name"], replica["version"]) == ("Ajanta", 1)
    assert replica["menu"]["menuItems"][1] == {"id": "2", "name": "Naan", "price": "2.50"}
    assert (await http.get(f"/restaurants/{new_id()}")).status_code == 404
    assert (await http.get(f"/consumers/{new_id()}")).status_code == 404


async def test_a_get_that_waits_is_answered_as_soon_as_the_order_is_settled(http, service, restaurant):
    order_id = await created(http, restaurant)
    began = asyncio.get_running_loop().time()
    waiting = asyncio.create_task(http.get(f"/orders/{order_id}", headers={"Prefer": "wait=20"}))
    await eventually(lambda: waited_for(service))
    pending = await http.get(f"/orders/{order_id}", headers={"Prefer": "wait=0"})
    assert pending.json()["state"] == "APPROVAL_PENDING"
    await approve(service, order_id)
    answer = await waiting
    assert (answer.json()["state"], answer.headers["preference-applied"]) == ("APPROVED", "wait=20")
    assert asyncio.get_running_loop().time() - began < 5


async def test_a_get_that_waited_long_enough_is_answered_with_what_there_is(http, restaurant):
    order_id = await created(http, restaurant)
    answer = await http.get(f"/orders/{order_id}", headers={"Prefer": "wait=1"})
    assert answer.json()["state"] == "APPROVAL_PENDING"


def events_in(stream: str):
    frames = [dict(line.split(": ", 1) for line in f.split("\n")) for f in stream.strip().split("\n\n") if f]
    return [(int(f["id"]), json.loads(f["data"])["state"]) for f in frames if "id" in f]


async def test_the_stream_of_an_order_tells_all_and_ends(http, service, restaurant):
    order_id = await created(http, restaurant)
    stream = asyncio.create_task(http.get(f"/orders/{order_id}/events"))
    await eventually(lambda: waited_for(service))
    await approve(service, order_id)
    answer = await stream
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert events_in(answer.text) == [(1, "APPROVAL_PENDING"), (2, "APPROVED")]
    resumed = await http.get(f"/orders/{order_id}/events", headers={"Last-Event-ID": "1"})
    assert events_in(resumed.text) == [(2, "APPROVED")]
    assert (await http.get(f"/orders/{order_id}/events", headers={"Last-Event-ID": "2"})).status_code == 204
    from_the_first = await http.get(f"/orders/{order_id}/events", headers={"Last-Event-ID": ""})
    assert events_in(from_the_first.text) == events_in(answer.text)
    assert (await http.get(f"/orders/{new_id()}/events")).status_code == 404


async def test_the_stream_of_a_rejected_order_says_why(http, service, restaurant):
    order_id = await created(http, restaurant)
    await service.transactions.run_operation(
        Operation(lambda uow: order_steps.reject(order_id, "BLOCKED", "consumer", uow))
    )
    answer = await http.get(f"/orders/{order_id}/events")
    assert events_in(answer.text)[-1] == (2, "REJECTED")
    assert '"rejection":{"reason":"BLOCKED","service":"consumer"}' in answer.text
    order = (await http.get(f"/orders/{order_id}")).json()
    assert order["rejection"] == {"reason": "BLOCKED", "service": "consumer"}


async def test_cancel_and_revise(http, service, restaurant):
    order_id = await created(http, restaurant)
    revision = {"revisedOrderLineItems": [{"menuItemId": "2", "quantity": 2}]}
    for path, json_body in (("cancel", None), ("revise", revision)):
        refused = await http.post(f"/orders/{order_id}/{path}", json=json_body)
        assert (refused.status_code, refused.json()["type"]) == (409, "urn:ftgo:wrong-state")
    await approve(service, order_id)
    revised = await http.post(f"/orders/{order_id}/revise", json=revision)
    assert (revised.status_code, revised.json()["state"]) == (202, "REVISION_PENDING")
    assert (revised.json()["orderTotal"], revised.json()["revision"]["orderTotal"]) == ("61.70", "5.00")
    await service.transactions.run_operation(Operation(lambda uow: order_steps.confirm_revise(order_id, uow)))
    answers = await asyncio.gather(*(http.post(f"/orders/{order_id}/cancel") for _ in range(5)))
    assert sorted(a.status_code for a in answers) == [202, 409, 409, 409, 409]
    order = (await http.get(f"/orders/{order_id}")).json()
    assert (order["state"], order["orderTotal"]) == ("CANCEL_PENDING", "5.00")
    for path in ("cancel", "revise"):
        assert (await http.post(f"/orders/{new_id()}/{path}", json=revision)).status_code == 404


async def test_a_refused_change_says_why_until_the_next_one_begins(http, service, restaurant):
    order_id, why = await created(http, restaurant), {"reason": "LIMIT_EXCEEDED", "service": "consumer"}
    await approve(service, order_id)
    revision = {"revisedOrderLineItems": [{"menuItemId": "2", "quantity": 2}]}
    await http.post(f"/orders/{order_id}/revise", json=revision)
    await service.transactions.run_operation(Operation(lambda uow: order_steps.undo_revise(order_id, **why, uow=uow)))
    order = (await http.get(f"/orders/{order_id}")).json()
    assert (order["state"], order["orderTotal"], order["changeRefusal"]) == ("APPROVED", "61.70", why)
    stream = (await http.get(f"/orders/{order_id}/events", headers={"Last-Event-ID": "3"})).text
    assert '"changeRefusal":{"reason":"LIMIT_EXCEEDED","service":"consumer"}' in stream
    assert "changeRefusal" not in (await http.post(f"/orders/{order_id}/cancel")).json()


async def test_pages_neither_skip_nor_repeat(http, restaurant):
    consumer = new_id()
    ids = [(await http.post("/orders", json=body(restaurant, consumer))).json()["orderId"] for _ in range(5)]
    seen, cursor = [], None
    for _ in range(3):
        query = {"consumerId": consumer, "limit": 2} | ({"cursor": cursor} if cursor else {})
        page = (await http.get("/orders", params=query)).json()
        seen += [o["orderId"] for o in page["orders"]]
        cursor = page["next"]
    assert (seen, cursor) == (sorted(ids, reverse=True), None)
    bad = await http.get("/orders", params={"consumerId": consumer, "cursor": "nonsense"})
    assert bad.status_code == 422


async def test_an_accepted_order_is_one_transaction(service, http, restaurant):
    """Order, history, saga, event and command are all there, and by one commit."""
    before = service.writes.commits
    order_id = await created(http, restaurant)
    assert service.writes.commits == before + 1
    async with service.engine.connect() as connection:
        types = await connection.execute(
            text(
                "SELECT CAST(headers AS json)->>'type' FROM outbox WHERE position(:id IN encode(body, 'escape')) > 0"
                " ORDER BY position"
            ),
            {"id": order_id},
        )
        assert [row[0] for row in types] == ["ftgo.order.OrderCreated", "ftgo.consumer.VerifyConsumer"]
