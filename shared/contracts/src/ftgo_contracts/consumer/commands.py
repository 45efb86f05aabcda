"""Commands to the Consumer service."""

from ftgo_messaging import Command, Success

from ftgo_contracts.channels import CONSUMER_COMMANDS, CREATE_ORDER_REPLIES, REVISE_ORDER_REPLIES
from ftgo_contracts.consumer.replies import ConsumerVerified
from ftgo_contracts.money import Money
from ftgo_contracts.types import Id


@CONSUMER_COMMANDS.carries("ftgo.consumer.VerifyConsumer", replies_to=(CREATE_ORDER_REPLIES, REVISE_ORDER_REPLIES))
class VerifyConsumer(Command[ConsumerVerified], frozen=True, kw_only=True, rename="camel"):
    """May this consumer have an order of this total, be it placed or revised? Changes nothing."""

    consumer_id: Id
    order_id: Id
    order_total: Money


@CONSUMER_COMMANDS.carries("ftgo.consumer.NotifyConsumer")
class NotifyConsumer(Command[Success], frozen=True, kw_only=True, rename="camel"):
    """Tell the consumer something about an order. One-way: nobody waits for an answer."""

    consumer_id: Id
    order_id: Id
    text: str
