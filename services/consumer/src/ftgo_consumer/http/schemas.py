"""What the REST API of consumers takes and gives."""

from typing import Annotated

from ftgo_service_kit.schemas import ABSENT_IF_BLANK, Amount, ApiModel, Email, MoneyOut, Text, UuidStr

from ftgo_consumer.domain.consumer import Consumer, ConsumerStatus


class Name(ApiModel):
    first_name: Text
    last_name: Text


class RegisterConsumerRequest(ApiModel):
    name: Name
    email: Annotated[Email | None, ABSENT_IF_BLANK] = None
    order_limit: Annotated[Amount | None, ABSENT_IF_BLANK] = None


class NameView(ApiModel):
    first_name: str
    last_name: str


class ConsumerView(ApiModel):
    consumer_id: UuidStr
    name: NameView
    email: str | None
    status: ConsumerStatus
    order_limit: MoneyOut
    version: int


def consumer_view(consumer: Consumer) -> ConsumerView:
    return ConsumerView(
        consumer_id=consumer.id,
        name=NameView(first_name=consumer.first_name, last_name=consumer.last_name),
        email=consumer.email,
        status=consumer.status,
        order_limit=consumer.order_limit,
        version=consumer.version,
    )
