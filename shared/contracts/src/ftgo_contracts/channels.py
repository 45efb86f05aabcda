"""All channels of FTGO. Commands are keyed by the aggregate that they change, events by their aggregate's id, replies
by the saga's id. A message with another key than its body says is not believed."""

from collections.abc import Collection, Mapping

from ftgo_messaging import Channel, Kind

CONSUMER_COMMANDS = Channel("consumer.commands", Kind.COMMAND, key=lambda c: c.consumer_id)
KITCHEN_COMMANDS = Channel("kitchen.commands", Kind.COMMAND, key=lambda c: getattr(c, "order_id", None) or c.ticket_id)
ACCOUNTING_COMMANDS = Channel("accounting.commands", Kind.COMMAND, key=lambda c: c.consumer_id)

CONSUMER_EVENTS = Channel("consumer.events", Kind.EVENT, key=lambda e: e.consumer_id)
RESTAURANT_EVENTS = Channel("restaurant.events", Kind.EVENT, key=lambda e: e.restaurant_id)
TICKET_EVENTS = Channel("ticket.events", Kind.EVENT, key=lambda e: e.ticket_id)
ACCOUNT_EVENTS = Channel("account.events", Kind.EVENT, key=lambda e: e.account_id)
ORDER_EVENTS = Channel("order.events", Kind.EVENT, key=lambda e: e.order_id)

CREATE_ORDER_REPLIES = Channel("order.create-order.replies", Kind.REPLY)
CANCEL_ORDER_REPLIES = Channel("order.cancel-order.replies", Kind.REPLY)
REVISE_ORDER_REPLIES = Channel("order.revise-order.replies", Kind.REPLY)

ALL_CHANNELS = (
    CONSUMER_COMMANDS,
    KITCHEN_COMMANDS,
    ACCOUNTING_COMMANDS,
    CONSUMER_EVENTS,
    RESTAURANT_EVENTS,
    TICKET_EVENTS,
    ACCOUNT_EVENTS,
    ORDER_EVENTS,
    CREATE_ORDER_REPLIES,
    CANCEL_ORDER_REPLIES,
    REVISE_ORDER_REPLIES,
)

READERS: Mapping[str, Collection[str]] = {
    CONSUMER_COMMANDS.name: ("consumer",),
    KITCHEN_COMMANDS.name: ("kitchen",),
    ACCOUNTING_COMMANDS.name: ("accounting",),
    CONSUMER_EVENTS.name: ("accounting-consumers", "order-replicas"),
    RESTAURANT_EVENTS.name: ("order-replicas",),
    CREATE_ORDER_REPLIES.name: ("order-sagas",),
    CANCEL_ORDER_REPLIES.name: ("order-sagas",),
    REVISE_ORDER_REPLIES.name: ("order-sagas",),
}
"""The consumers of each channel, for brokers that keep a message for those alone whom they know when it comes. A
channel that is not here has no reader inside of FTGO."""
