"""Sagas that an earlier release has stored are finished by this one.

``golden/`` holds instance rows as a release wrote them: one for each step that a definition can wait in, forward and
back. They are never changed. A new version of a definition adds files; FTGO_WRITE_GOLDEN=1 writes those that are
missing. An old definition may go when no instance of it can be left, and its files with it.
"""

import json
import os
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from ftgo_contracts.money import Money
from ftgo_messaging import Message, Saga, Success
from ftgo_messaging.messages import codec
from ftgo_messaging.messages import message as m
from ftgo_messaging.sagas.instance import SagaInstance, SagaState
from ftgo_messaging.testing.memory import Memory
from ftgo_messaging.testing.sagas import SagaConversation
from ftgo_order import sagas
from ftgo_order.adapters.tables import ORDERS
from ftgo_order.domain.order import Address, Delivery, Order, OrderLineItem, OrderState
from ftgo_order.sagas import ORCHESTRATOR

GOLDEN = Path(__file__).parent / "golden"
ORDER, CONSUMER, RESTAURANT, SAGA, COMMAND = (f"01900000-0000-7000-8000-00000000000{n}" for n in range(5))
LINES = (OrderLineItem("1", "Soup", Money.of("4.50"), 2),)
NEW = Order.create(
    id=ORDER,
    consumer_id=CONSUMER,
    restaurant_id=RESTAURANT,
    restaurant_name="Ajanta",
    line_items=LINES,
    delivery=Delivery(datetime(2030, 1, 1, tzinfo=UTC), Address("1 Main Street", None, "Oakland", "CA", "94611")),
    fingerprint="f",
)
BEGUN = {
    "ftgo.order.CreateOrder": (NEW, sagas.create_order.start),
    "ftgo.order.CancelOrder": (NEW.approve().begin_cancel(), sagas.cancel_order.start),
    "ftgo.order.ReviseOrder": (NEW.approve().begin_revise(LINES), sagas.revise_order.start),
}
ENDS = {
    ("ftgo.order.CreateOrder", "RUNNING"): OrderState.APPROVED,
    ("ftgo.order.CreateOrder", "COMPENSATING"): OrderState.REJECTED,
    ("ftgo.order.CancelOrder", "RUNNING"): OrderState.CANCELLED,
    ("ftgo.order.CancelOrder", "COMPENSATING"): OrderState.APPROVED,
    ("ftgo.order.ReviseOrder", "RUNNING"): OrderState.APPROVED,
    ("ftgo.order.ReviseOrder", "COMPENSATING"): OrderState.APPROVED,
}
DEFINITIONS = [
    sagas.create_order.CREATE_ORDER,
    sagas.cancel_order.CANCEL_ORDER,
    sagas.revise_order.REVISE_ORDER_V1,
    sagas.revise_order.REVISE_ORDER,
]


def waits(definition: Saga[Any]) -> list[tuple[SagaState, str]]:
    """Where an instance of this definition can wait for an answer."""
    forward = [(SagaState.RUNNING, step.name) for step in definition.steps if step.command]
    back = [(SagaState.COMPENSATING, step.name) for step in definition.steps if step.taken_back_by]
    return forward + back


def path(definition: Saga[Any], state: SagaState, step: str) -> Path:
    name = f"{definition.type.rsplit('.', 1)[1]}-v{definition.version}-{state.lower()}-{step.replace(' ', '-')}"
    return GOLDEN / f"{name}.json"


async def write(definition: Saga[Any], state: SagaState, step: str) -> None:
    memory, (order, start) = Memory("order"), BEGUN[definition.type]
    saga_id = await memory.run(lambda uow: start(order, uow))
    instance = replace(
        memory.get(ORCHESTRATOR.instances, saga_id), saga_id=SAGA, state=state, step=step, awaited_command=COMMAND
    )
    row = ORCHESTRATOR.instances.to_row(instance)
    path(definition, state, step).write_text(json.dumps(row, indent=1) + "\n")


@pytest.mark.parametrize("definition", DEFINITIONS, ids=lambda d: f"{d.type}-v{d.version}")
async def test_every_wait_has_its_file(definition: Saga[Any]) -> None:
    missing = [wait for wait in waits(definition) if not path(definition, *wait).exists()]
    if os.environ.get("FTGO_WRITE_GOLDEN"):
        for wait in missing:
            await write(definition, *wait)
        return
    assert missing == []


def read(file: Path) -> SagaInstance:
    return ORCHESTRATOR.instances.from_row(json.loads(file.read_text()))


FILES = sorted(GOLDEN.glob("*.json"))


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.stem)
async def test_a_stored_saga_is_finished(file: Path) -> None:
    instance = read(file)
    memory = Memory("order")
    memory.put(ORCHESTRATOR.instances, instance)
    memory.put(ORDERS, BEGUN[instance.type][0])
    saga = SagaConversation(ORCHESTRATOR, memory, instance.saga_id)
    assert await saga.overdue()
    channel = ORCHESTRATOR.definition(instance).reply_channel.name
    while (awaited := saga.instance.awaited_command) is not None:
        await saga.reply(Success(), to=Message(awaited, "", "", {m.REPLY_CHANNEL: channel, m.SAGA_ID: SAGA}, b""))
    assert saga.instance.state.final
    assert memory.get(ORDERS, ORDER).state is ENDS[instance.type, instance.state.value]


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.stem)
def test_stored_data_are_read_whole(file: Path) -> None:
    """A field that was renamed or dropped would be lost here without a word, for unknown fields are ignored."""
    instance = read(file)
    data = codec.decode(instance.data, ORCHESTRATOR.definition(instance).data)
    stored, again = json.loads(instance.data), json.loads(codec.encode(data))
    assert {name: again.get(name) for name in stored} == stored
