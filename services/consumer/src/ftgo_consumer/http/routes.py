"""The REST API of consumers."""

from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import Path, Request, Response
from ftgo_contracts.money import Money
from ftgo_messaging import Operation, UnitOfWork, new_id
from ftgo_messaging.transaction import rows
from ftgo_service_kit.json_body import JsonRouter
from ftgo_service_kit.problems import responses
from ftgo_service_kit.schemas import UuidStr

from ftgo_consumer.adapters.tables import CONSUMERS
from ftgo_consumer.application import consumers
from ftgo_consumer.domain.consumer import Consumer, ConsumerNotFound
from ftgo_consumer.http.schemas import ConsumerView, Name, RegisterConsumerRequest, consumer_view

ConsumerId = Annotated[UuidStr, Path(alias="consumerId")]

router = JsonRouter(prefix="/consumers", tags=["consumers"])


@router.post("", status_code=201)
async def register_consumer(body: RegisterConsumerRequest, request: Request, response: Response) -> ConsumerView:
    """Register a consumer. Other services hear of it a moment later; orders may be placed at once."""
    limit = None if body.order_limit is None else Money.of(body.order_limit)
    consumer = Consumer.register(new_id(), body.name.first_name, body.name.last_name, body.email, limit)
    await request.app.state.group_commit.submit(Operation(lambda uow: consumers.register(consumer, uow)))
    response.headers["Location"] = f"/consumers/{consumer.id}"
    return consumer_view(consumer)


@router.get("/{consumerId}", responses=responses(404))
async def get_consumer(consumer_id: ConsumerId, request: Request) -> ConsumerView:
    statement = rows.select_by_key(CONSUMERS.table, CONSUMERS.key, False)
    async with request.app.state.engine.connect() as connection:
        row = (await connection.execute(statement, {"keys": [consumer_id]})).mappings().one_or_none()
    if row is None:
        raise ConsumerNotFound(f"There is no consumer {consumer_id}.")
    return consumer_view(CONSUMERS.from_row(dict(row)))


@router.post("/{consumerId}/block", responses=responses(404))
async def block_consumer(consumer_id: ConsumerId, request: Request) -> ConsumerView:
    """Reject the consumer's orders from now on. May be repeated."""
    return await _write(consumer_id, lambda uow: consumers.block(consumer_id, uow), request)


@router.post("/{consumerId}/unblock", responses=responses(404))
async def unblock_consumer(consumer_id: ConsumerId, request: Request) -> ConsumerView:
    """Let the consumer order again. May be repeated."""
    return await _write(consumer_id, lambda uow: consumers.unblock(consumer_id, uow), request)


@router.put("/{consumerId}/name", responses=responses(404))
async def rename_consumer(consumer_id: ConsumerId, body: Name, request: Request) -> ConsumerView:
    """Change the name. The replica in the order service follows by an event."""
    return await _write(
        consumer_id, lambda uow: consumers.rename(consumer_id, body.first_name, body.last_name, uow), request
    )


async def _write(
    consumer_id: str, use_case: Callable[[UnitOfWork], Awaitable[Consumer]], request: Request
) -> ConsumerView:
    operation = Operation(use_case, [lambda _: [(CONSUMERS, consumer_id)]])
    return consumer_view(await request.app.state.group_commit.submit(operation))
