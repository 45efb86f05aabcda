"""Events of the Consumer service, keyed by the consumer's id."""

import msgspec
from ftgo_messaging import DomainEvent

from ftgo_contracts.channels import CONSUMER_EVENTS
from ftgo_contracts.types import Id


class PersonName(msgspec.Struct, frozen=True, rename="camel"):
    first_name: str
    last_name: str


class ConsumerEvent(DomainEvent, frozen=True, kw_only=True, rename="camel"):
    """Every consumer event carries the whole public state, so that a replica needs only the newest."""

    consumer_id: Id
    name: PersonName
    status: str


@CONSUMER_EVENTS.carries("ftgo.consumer.ConsumerRegistered")
class ConsumerRegistered(ConsumerEvent, frozen=True, kw_only=True, rename="camel"):
    pass


@CONSUMER_EVENTS.carries("ftgo.consumer.ConsumerRenamed")
class ConsumerRenamed(ConsumerEvent, frozen=True, kw_only=True, rename="camel"):
    pass


@CONSUMER_EVENTS.carries("ftgo.consumer.ConsumerBlocked")
class ConsumerBlocked(ConsumerEvent, frozen=True, kw_only=True, rename="camel"):
    pass


@CONSUMER_EVENTS.carries("ftgo.consumer.ConsumerUnblocked")
class ConsumerUnblocked(ConsumerEvent, frozen=True, kw_only=True, rename="camel"):
    pass
