"""Tests of the conformance suite that need a database can fail as well: for every fault that is planted here into the
memory broker, the test that is named beside it does. The others: tests/unit/test_transport_suite_finds.py.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from ftgo_local.postgres import Postgres
from ftgo_messaging.messages import message as m
from ftgo_messaging.messages.message import Message
from ftgo_messaging.testing.suite.members import Wire
from ftgo_messaging.testing.suite.services import Services
from ftgo_messaging.testing.transport_suite import TransportSuite
from ftgo_messaging.transports import memory
from ftgo_messaging.transports.memory import MemoryBroker, MemoryTransport
from ftgo_messaging.transports.port import Sent

pytestmark = [pytest.mark.slow, pytest.mark.brokers]
Patch = pytest.MonkeyPatch
FAULTS: list[Any] = []
put = MemoryBroker.put


class Quick(TransportSuite):
    patience = 8.0


class InMemory:
    traits = memory.TRAITS
    url = None
    kill = start = stop = None

    def __init__(self) -> None:
        self.broker = MemoryBroker()

    def transport(self) -> MemoryTransport:
        return MemoryTransport(self.broker, self.broker.lanes)


def found_by(*names: str) -> Callable[[Callable[[Patch], None]], None]:
    def declare(plant: Callable[[Patch], None]) -> None:
        FAULTS.extend(pytest.param(plant, name, id=f"{plant.__name__}-{name}") for name in names)

    return declare


async def run(name: str, postgres: Postgres) -> None:
    wire, databases = Wire(InMemory(), Quick.patience), await postgres.create_service_databases(["suite"])
    try:
        await getattr(Quick(), name)(wire, databases["suite"])
    finally:
        await wire.close()


TESTS = {name for name in vars(Services) if name.startswith("test_")}


@pytest.mark.parametrize("name", sorted(TESTS))
async def test_it_passes_without_a_fault(name: str, postgres: Postgres) -> None:
    await run(name, postgres)


def test_each_test_has_a_fault() -> None:
    assert {fault.values[1] for fault in FAULTS} == TESTS


# -- the faults --------------------------------------------------------------------------------------------------------


@found_by("test_request_and_reply", "test_publish_and_collect")
def loses_replies(patch: Patch) -> None:
    def faulty(self: MemoryBroker, message: Message) -> Sent:
        return Sent.CONFIRMED if message.headers[m.KIND] == "reply" else put(self, message)

    patch.setattr(MemoryBroker, "put", faulty)


@found_by("test_request_and_reply")
def the_last_comes_first(patch: Patch) -> None:
    waiting: list[Message] = []

    def faulty(self: MemoryBroker, message: Message) -> Sent:
        if message.headers[m.KIND] == "reply" and not waiting:
            waiting.append(message)
            return Sent.CONFIRMED
        sent = put(self, message)
        if message.headers[m.KIND] == "reply":
            put(self, waiting.pop())
        return sent

    patch.setattr(MemoryBroker, "put", faulty)


@found_by("test_one_way_notification", "test_one_poison_among_a_thousand")
def loses_the_second(patch: Patch) -> None:
    seen: list[str] = []

    def faulty(self: MemoryBroker, message: Message) -> Sent:
        seen.append(message.id)
        return Sent.CONFIRMED if len(seen) == 2 else put(self, message)

    patch.setattr(MemoryBroker, "put", faulty)


@found_by("test_publish_and_collect")
def subscribers_compete(patch: Patch) -> None:
    def faulty(self: MemoryBroker, message: Message) -> Sent:
        all_ = self.channels[message.channel]
        self.channels[message.channel] = set(sorted(all_)[:1])
        sent = put(self, message)
        self.channels[message.channel] = all_
        return sent

    patch.setattr(MemoryBroker, "put", faulty)


@found_by("test_one_poison_among_a_thousand")
def cannot_read_one(patch: Patch) -> None:
    def faulty(self: MemoryBroker, message: Message) -> Sent:
        sent = put(self, message)
        for queue in self.queues.values():
            if len(queue) == 3:
                queue[-1] = replace(queue[-1], defect="it is no text")
        return sent

    patch.setattr(MemoryBroker, "put", faulty)


@found_by("test_one_way_notification")
def spoils_types(patch: Patch) -> None:
    def faulty(self: MemoryBroker, message: Message) -> Sent:
        return put(self, replace(message, headers={**message.headers, m.TYPE: message.headers[m.TYPE].lower()}))

    patch.setattr(MemoryBroker, "put", faulty)


@pytest.mark.parametrize(("plant", "name"), FAULTS)
async def test_the_fault_is_found(
    plant: Callable[[Patch], None], name: str, postgres: Postgres, monkeypatch: Patch
) -> None:
    plant(monkeypatch)
    with pytest.raises((AssertionError, TimeoutError)):
        await run(name, postgres)
