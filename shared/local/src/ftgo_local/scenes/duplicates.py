"""A scene in which Kafka delivers a message twice, as it does after a crash between publishing and remembering it."""

from ftgo_local.errors import NotRunningError
from ftgo_local.scenes.records import Topic, body_of, headers_of
from ftgo_local.scenes.stage import Stage, expect

HANDLED = "ftgo_messages_handled_total"


async def the_same_message_twice(stage: Stage) -> None:
    """The same message is delivered twice: it takes effect once

    The command that authorizes the payment is read from Kafka and published once more, and the reply to it too. The
    receivers know the ids of what they have handled: the second delivery is counted, and changes nothing.
    """
    if stage.kafka is None:
        raise NotRunningError("This scene writes to Kafka.", "Set FTGO_KAFKA_BOOTSTRAP.")
    commands = await Topic(stage.kafka, "accounting.commands").mark()
    replies = await Topic(stage.kafka, "order.create-order.replies").mark()
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

        async def recognised(receiver: str = receiver, counted: float = counted) -> float:
            duplicates = await stage.metric(receiver, HANDLED, outcome="duplicate")
            expect(duplicates > counted, f"{receiver} to count a duplicate", duplicates)
            return duplicates

        total = await stage.until(recognised)
        stage.tell(f"    {receiver} has counted it as a duplicate ({total:.0f} since its start)")

    account = await stage.show("GET", f"{stage.urls.accounting}/accounts/{consumer}")
    expect(account["authorized"] == before["orderTotal"], "the order's total authorized once", account)
    after = await stage.order(order_id)
    expect(after == before, "the order as it was", after)
    stage.tell(f"  The order still has version {after['version']}, and the account one authorization.")
