"""The Consumer aggregate and the commands that ask about it."""

import pytest
from ftgo_consumer.adapters.tables import CONSUMERS, CONSUMERS_TO_READ, outbound_mail
from ftgo_consumer.application import consumers
from ftgo_consumer.domain.consumer import Consumer, ConsumerNotFound, ConsumerStatus
from ftgo_consumer.messaging.command_handlers import notify_consumer, verify_consumer
from ftgo_contracts.consumer.commands import NotifyConsumer, VerifyConsumer
from ftgo_contracts.consumer.events import ConsumerBlocked, ConsumerRegistered, ConsumerRenamed, ConsumerUnblocked
from ftgo_contracts.consumer.replies import ConsumerVerificationFailed, ConsumerVerified
from ftgo_contracts.money import Money
from ftgo_messaging import new_id
from ftgo_messaging.testing.memory import Memory

ID = new_id()
ANN = Consumer.register(ID, "Ann", "Lee", None, Money.of("50.00"))


def verify(total: str, consumer_id: str = ID) -> VerifyConsumer:
    return VerifyConsumer(consumer_id=consumer_id, order_id=new_id(), order_total=Money.of(total))


async def answer(memory: Memory, command: VerifyConsumer) -> object:
    return await memory.run(lambda uow: verify_consumer(command, uow))


async def test_registering_tells_the_others() -> None:
    memory = Memory()
    await memory.run(lambda uow: consumers.register(ANN, uow))
    (event,) = memory.sent()
    assert isinstance(event, ConsumerRegistered)
    assert (event.consumer_id, event.status, event.name.first_name) == (ID, "ACTIVE", "Ann")
    assert memory.get(CONSUMERS, ID) == ANN
    assert Consumer.register(ID, "A", "B", None, None).order_limit == Money.of("1000.00")


async def test_a_change_is_told_once_and_a_repetition_not_at_all() -> None:
    memory = Memory()
    memory.put(CONSUMERS, ANN)
    for _ in range(2):
        await memory.run(lambda uow: consumers.block(ID, uow))
    assert memory.get(CONSUMERS, ID).status is ConsumerStatus.BLOCKED
    for _ in range(2):
        await memory.run(lambda uow: consumers.unblock(ID, uow))
        await memory.run(lambda uow: consumers.rename(ID, "Bea", "Lee", uow))
    assert [type(e) for e in memory.sent()] == [ConsumerBlocked, ConsumerUnblocked, ConsumerRenamed]
    assert memory.get(CONSUMERS, ID).version == 4


async def test_an_unknown_consumer_is_not_found() -> None:
    with pytest.raises(ConsumerNotFound):
        await Memory().run(lambda uow: consumers.block(ID, uow))


async def test_verification() -> None:
    memory = Memory()
    assert await answer(memory, verify("1.00")) == ConsumerVerificationFailed(reason="UNKNOWN")
    memory.put(CONSUMERS_TO_READ, ANN)
    assert await answer(memory, verify("50.00")) == ConsumerVerified()
    assert await answer(memory, verify("50.01")) == ConsumerVerificationFailed(reason="LIMIT_EXCEEDED")
    memory.put(CONSUMERS_TO_READ, ANN.block())
    assert await answer(memory, verify("1.00")) == ConsumerVerificationFailed(reason="BLOCKED")
    assert memory.messages == []


async def test_a_notification_becomes_a_mail_and_no_reply() -> None:
    memory = Memory()
    command = NotifyConsumer(consumer_id=ID, order_id=new_id(), text="Your order is approved.")
    assert await memory.run(lambda uow: notify_consumer(command, uow)) is None
    ((table, mail),) = memory.appended
    assert table is outbound_mail
    assert mail["text"] == "Your order is approved."
    assert memory.messages == []
