"""What the REST API of consumers takes and gives."""

from typing import Annotated

from ftgo_service_kit.schemas import Amount, ApiModel, MoneyOut, Text, UuidStr
from pydantic import Field

from ftgo_consumer.domain.consumer import Consumer, ConsumerStatus


class Name(ApiModel):
    first_name: Text
    last_name: Text


class RegisterConsumerRequest(ApiModel):
    name: Name
    email: Annotated[str, Field(max_length=254, pattern=r"^[!-?A-~]+@[!-?A-~]+$")] | None = None
    order_limit: Amount | None = None


class ConsumerView(ApiModel):
    consumer_id: UuidStr
    name: Name
    email: str | None
    status: ConsumerStatus
    order_limit: MoneyOut
    version: int


def consumer_view(consumer: Consumer) -> ConsumerView:
    return ConsumerView(
        consumer_id=consumer.id,
        name=Name(first_name=consumer.first_name, last_name=consumer.last_name),
        email=consumer.email,
        status=consumer.status,
        order_limit=consumer.order_limit,
        version=consumer.version,
    )
