"""What a client of the REST API relies on: repeating safely, waiting, streaming, paging, and the kitchen's day."""

import asyncio
import time
import uuid
from typing import Any

import httpx
import pytest
from ftgo_local.scenes.records import body_of, headers_of
from ftgo_local.scenes.stage import Stage, expect, in_minutes, line_items
from ftgo_local.scenes.tap import Topics


async def test_registering_and_ordering_in_the_same_second(stage: Stage) -> None:
    await stage.restaurant()

    async def register_and_order() -> str:
        return await stage.place(await stage.consumer())

    orders = await asyncio.gather(*(register_and_order() for _ in range(20)))
    for order in orders:
        await stage.settled(order, "APPROVED")


async def test_an_unknown_consumer_is_found_out_by_the_saga(stage: Stage) -> None:
    order = await stage.place(str(uuid.uuid4()))
    found = await stage.settled(order, "REJECTED")
    assert found["rejection"] == {"reason": "UNKNOWN", "service": "consumer"}
    response = await stage.client.get(f"{stage.urls.kitchen}/tickets/{order}")
    assert response.status_code == 404


async def test_a_blocked_consumer_is_refused_at_once(stage: Stage) -> None:
    consumer = await stage.consumer("Bella")
    await stage.do("POST", f"{stage.urls.consumer}/consumers/{consumer}/block")

    async def known_as_blocked() -> None:
        replica = await stage.do("GET", f"{stage.urls.order}/consumers/{consumer}")
        expect(replica["status"] == "BLOCKED", "a blocked consumer", replica)

    await stage.until(known_as_blocked)
    answer = await _post(stage, await stage.order_for(consumer))
    assert (answer.status_code, answer.json()["type"]) == (422, "urn:ftgo:consumer-blocked")
    await stage.do("POST", f"{stage.urls.consumer}/consumers/{consumer}/unblock")

    async def accepted_again() -> str:
        again = await _post(stage, await stage.order_for(consumer))
        expect(again.status_code == 202, "an accepted order", again.text)
        return str(again.json()["orderId"])

    await stage.settled(await stage.until(accepted_again), "APPROVED")


async def test_fifty_equal_requests_at_once_make_one_order(stage: Stage) -> None:
    consumer = await stage.consumer()
    body = await stage.order_for(consumer)
    key = str(uuid.uuid4())
    answers = await asyncio.gather(*(_post(stage, body, key) for _ in range(50)))
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.text for answer in answers}) == 1
    assert len({answer.headers["Location"] for answer in answers}) == 1
    order = answers[0].json()["orderId"]
    await stage.settled(order)
    listed = await stage.do("GET", f"{stage.urls.order}/orders?consumerId={consumer}")
    assert [o["orderId"] for o in listed["orders"]] == [order]
    account = await stage.account(consumer)
    assert account["authorized"] == "31.60"
    # Once more, when the order has moved on: still the answer of the first time.
    assert (await _post(stage, body, key)).text == answers[0].text


async def test_a_key_with_another_body_is_refused(stage: Stage) -> None:
    consumer = await stage.consumer()
    key = str(uuid.uuid4())
    body = await stage.order_for(consumer)
    assert (await _post(stage, body, key)).status_code == 202
    other = await _post(stage, {**body, "lineItems": line_items([("2", 1)])}, key)
    assert other.status_code == 422
    assert other.headers["content-type"] == "application/problem+json"
    assert other.json()["type"] == "urn:ftgo:idempotency-key-reused"
    somebody_else = await stage.order_for(await stage.consumer())
    assert (await _post(stage, somebody_else, key)).status_code == 202, "keys belong to a consumer"


async def test_an_order_under_the_clients_own_id(stage: Stage) -> None:
    body = await stage.order_for(await stage.consumer())
    url = f"{stage.urls.order}/orders/{uuid.uuid4()}"
    answers = await asyncio.gather(*(stage.client.put(url, json=body) for _ in range(10)))
    statuses = sorted(answer.status_code for answer in answers)
    assert statuses == [200] * 9 + [202]
    assert {answer.json()["orderId"] for answer in answers} == {url.rpartition("/")[2]}
    await stage.settled(url.rpartition("/")[2])
    assert (await stage.client.put(url, json=body)).json()["state"] == "APPROVED"
    other = await stage.client.put(url, json={**body, "lineItems": line_items([("2", 1)])})
    assert (other.status_code, other.json()["type"]) == (409, "urn:ftgo:order-id-taken")


async def test_prefer_wait_answers_when_the_order_is_settled(stage: Stage) -> None:
    order = await stage.place(await stage.consumer())
    started = time.monotonic()
    answer = await stage.client.get(f"{stage.urls.order}/orders/{order}", headers={"Prefer": "wait=30"})
    assert answer.json()["state"] == "APPROVED"
    assert answer.headers["Preference-Applied"] == "wait=30"
    assert time.monotonic() - started < 10, "it was held until a deadline instead of until the settling"


async def test_an_unchanged_order_is_not_sent_again(stage: Stage) -> None:
    order = await stage.place(await stage.consumer())
    await stage.settled(order)
    url = f"{stage.urls.order}/orders/{order}"
    tag = (await stage.client.get(url)).headers["ETag"]
    assert (await stage.client.get(url, headers={"If-None-Match": tag})).status_code == 304
    await stage.cancel(order)
    await stage.settled(order, "CANCELLED")
    changed = await stage.client.get(url, headers={"If-None-Match": tag})
    assert changed.status_code == 200
    assert changed.headers["ETag"] != tag


async def test_the_event_stream_goes_on_where_the_client_stood(stage: Stage) -> None:
    order = await stage.place(await stage.consumer())
    events = await stage.events(order)
    assert [(e["id"], e["state"]) for e in events] == [(1, "APPROVAL_PENDING"), (2, "APPROVED")]
    assert [e["state"] for e in await stage.events(order, after=1)] == ["APPROVED"]
    assert await stage.events(order, after=2) == []
    await stage.revise(order, [("2", 1)])
    await stage.settled(order)
    assert [(e["id"], e["state"]) for e in await stage.events(order, after=2)] == [
        (3, "REVISION_PENDING"),
        (4, "APPROVED"),
    ]


async def test_paging_neither_skips_nor_repeats(stage: Stage) -> None:
    consumer = await stage.consumer()
    placed = [await stage.place(consumer, [("3", 1)]) for _ in range(7)]
    seen: list[str] = []
    parameters = {"consumerId": consumer, "limit": "3"}
    for page_length in (3, 3, 1):
        answer = await stage.client.get(f"{stage.urls.order}/orders", params=parameters)
        page = answer.json()
        assert len(page["orders"]) == page_length
        seen += [o["orderId"] for o in page["orders"]]
        # A new order meanwhile is on the first page, and moves nothing.
        await stage.place(consumer, [("3", 1)])
        parameters["cursor"] = page["next"]
    assert page["next"] is None
    assert sorted(seen) == sorted(placed)
    answer = await stage.client.get(f"{stage.urls.order}/orders", params={"consumerId": consumer, "cursor": "nonsense"})
    assert answer.status_code == 422


async def test_the_kitchens_day(stage: Stage) -> None:
    restaurant = await stage.restaurant([{"id": "1", "name": "Soup", "price": "5.00"}])
    order = await stage.place(await stage.consumer(), [("1", 1)], restaurant)
    await stage.settled(order)
    url = f"{stage.urls.kitchen}/tickets/{order}"
    waiting = await stage.do("GET", f"{stage.urls.kitchen}/tickets?restaurantId={restaurant}&state=AWAITING_ACCEPTANCE")
    assert [ticket["id"] for ticket in waiting["tickets"]] == [order]
    states = ["ACCEPTED", "PREPARING", "READY_FOR_PICKUP", "PICKED_UP"]
    steps: list[tuple[str, dict[str, Any] | None]]
    steps = [("accept", {"readyBy": in_minutes(30)}), ("preparing", None), ("ready", None), ("picked-up", None)]
    for index, (step, body) in enumerate(steps):
        for later, later_body in steps[index + 1 :]:
            problem = await stage.do("POST", f"{url}/{later}", later_body, status=409)
            assert problem["status"] == 409
        ticket = await stage.do("POST", f"{url}/{step}", body)
        assert ticket["state"] == states[index]
    for step, body in steps:
        await stage.do("POST", f"{url}/{step}", body, status=409)
    history = [entry["state"] for entry in (await stage.ticket(order))["history"]]
    assert history == ["CREATE_PENDING", "AWAITING_ACCEPTANCE", *states]


@pytest.mark.parametrize("service", ["consumer", "kitchen", "accounting", "order"])
async def test_what_an_operator_asks(stage: Stage, service: str) -> None:
    url = getattr(stage.urls, service)
    for path in ("/livez", "/readyz", "/metrics", "/openapi.json", "/docs"):
        assert (await stage.client.get(url + path)).status_code == 200, path


async def _post(stage: Stage, body: dict[str, Any], key: str | None = None) -> httpx.Response:
    headers = {"Idempotency-Key": key} if key else {}
    return await stage.client.post(f"{stage.urls.order}/orders", json=body, headers=headers)


async def test_a_trace_and_a_conversation_reach_from_the_request_to_the_last_participant(
    stage: Stage, topics: Topics
) -> None:
    heard = [await topics(name) for name in ("order.events", "accounting.commands", "account.events")]
    trace = {"traceparent": f"00-{uuid.uuid4().hex}-00f067aa0ba902b7-01", "tracestate": "vendor=1"}
    body = await stage.order_for(await stage.consumer())
    answer = await stage.client.post(f"{stage.urls.order}/orders", json=body, headers=trace)
    order = answer.json()["orderId"]
    await stage.settled(order, "APPROVED")
    found = [headers_of(await t.find(lambda r: body_of(r).get("orderId") == order)) for t in heard]
    assert [{name: headers.get(name) for name in trace} for headers in found] == [trace] * 3
    assert len({headers["ce_correlationid"] for headers in found}) == 1


async def test_what_is_no_trace_is_ignored(stage: Stage, topics: Topics) -> None:
    topic = await topics("order.events")
    body = await stage.order_for(await stage.consumer())
    answer = await stage.client.post(
        f"{stage.urls.order}/orders", json=body, headers={"traceparent": f"00-{'0' * 32}-00f067aa0ba902b7-01"}
    )
    order = answer.json()["orderId"]
    assert "traceparent" not in headers_of(await topic.find(lambda r: body_of(r).get("orderId") == order))
