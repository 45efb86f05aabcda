"""A scene in which the broker delivers a message twice, as after a crash between publishing and remembering it."""

from ftgo_contracts.accounting.commands import AuthorizePayment
from ftgo_contracts.channels import ACCOUNTING_COMMANDS
from ftgo_contracts.money import Money
from ftgo_messaging.messages import codec, message
from ftgo_messaging.messages.ids import new_id
from ftgo_messaging.messages.message import Message
from ftgo_messaging.transports import transport_at
from ftgo_messaging.transports.port import Sent

from ftgo_local.errors import NotRunningError
from ftgo_local.scenes.records import Topic, body_of, headers_of
from ftgo_local.scenes.stage import Json, Stage, expect

HANDLED = "ftgo_messages_handled_total"


async def the_same_message_twice(stage: Stage) -> None:
    """The same message is delivered twice: it takes effect once

    The command that authorizes a payment is published once more under its id; where the broker lets us read what it
    holds, the reply to it, too. The receivers know the ids of what they have handled: the second delivery is counted,
    and changes nothing.
    """
    if stage.broker is None:
        raise NotRunningError("This scene writes to the broker.", "Set FTGO_BROKER_URL, or FTGO_KAFKA_BOOTSTRAP.")
    if stage.kafka is None:
        await _a_command_of_ours(stage, stage.broker)
    else:
        await _records_of_kafka(stage, stage.kafka)


async def _records_of_kafka(stage: Stage, kafka: str) -> None:
    """The very records of an order, read from the topics."""
    commands = await Topic(kafka, "accounting.commands").mark()
    replies = await Topic(kafka, "order.create-order.replies").mark()
    consumer = await stage.consumer()
    order_id = await stage.place(consumer)
    before = await stage.settled(order_id)

    command = await commands.find(lambda r: body_of(r).get("orderId") == order_id)
    command_id = headers_of(command)["ce_id"]
    reply = await replies.find(lambda r: headers_of(r).get("ce_inreplyto") == command_id)
    for topic, record, receiver in ((commands, command, "accounting"), (replies, reply, "order")):
        headers = headers_of(record)
        counted = await stage.metric(receiver, HANDLED, outcome="duplicate")
        stage.tell(f"  {topic.name}, partition {record.partition}, offset {record.offset}:")
        stage.tell(f"    {headers['ce_type']} {headers['ce_id']}, published once more")
        await topic.put_again(record)
        total = await _duplicate(stage, receiver, counted)
        stage.tell(f"    {receiver} has counted it as a duplicate ({total:.0f} since its start)")

    account = await stage.show("GET", f"{stage.urls.accounting}/accounts/{consumer}")
    expect(account["authorized"] == before["orderTotal"], "the order's total authorized once", account)
    after = await stage.order(order_id)
    expect(after == before, "the order as it was", after)
    stage.tell(f"  The order still has version {after['version']}, and the account one authorization.")


async def _a_command_of_ours(stage: Stage, broker: str) -> None:
    """Queues give a message away once, and nobody else may look: so we are the sender, and say the same thing twice."""
    consumer = await stage.consumer()
    await stage.settled(await stage.place(consumer))
    before = await _authorized(stage, consumer)
    counted = await stage.metric("accounting", HANDLED, outcome="duplicate")
    command = _payment(consumer)
    transport = transport_at(broker)
    publisher = transport.publisher("ftgo-demo")
    try:
        for time in ("once", "once more"):
            (sent,) = await publisher.publish([command])
            expect(sent is Sent.CONFIRMED, "a confirmation of the broker", sent)
            stage.tell(f"  {command.channel}: {command.type} {command.id}, published {time}")

            async def handled() -> Json:
                account = await stage.account(consumer)
                expect(account["authorized"] != before, "a second authorization", account)
                return account

            account = await stage.until(handled)
    finally:
        await publisher.close()
        await transport.close()
    total = await _duplicate(stage, "accounting", counted)
    stage.tell(f"    accounting has counted it as a duplicate ({total:.0f} since its start)")
    after = await stage.show("GET", f"{stage.urls.accounting}/accounts/{consumer}")
    expect(after == account, "the account as after the first delivery", after)
    stage.tell(f"  {account['authorized']} are authorized: the payment was taken once.")


def _payment(consumer: str) -> Message:
    body = AuthorizePayment(consumer_id=consumer, order_id=new_id(), amount=Money(777))
    command_id = new_id()
    headers = {message.ID: command_id, message.TYPE: "ftgo.accounting.AuthorizePayment", message.SOURCE: "order"}
    return Message(command_id, ACCOUNTING_COMMANDS.name, consumer, headers, codec.encode(body))


async def _authorized(stage: Stage, consumer: str) -> str:
    return str((await stage.account(consumer))["authorized"])


async def _duplicate(stage: Stage, receiver: str, before: float) -> float:
    """Wait until the receiver has counted one more; returns the number."""

    async def counted() -> float:
        found = await stage.metric(receiver, HANDLED, outcome="duplicate")
        expect(found > before, f"{receiver} to count a duplicate", found)
        return found

    return await stage.until(counted)
