"""The REST API of accounting: read an account, change its limit, disable and enable it."""

from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import Path, Request
from ftgo_contracts.money import Money
from ftgo_messaging import Operation, UnitOfWork
from ftgo_service_kit.json_body import JsonRouter
from ftgo_service_kit.problems import responses
from ftgo_service_kit.schemas import UuidStr

from ftgo_accounting.adapters.queries import statement_of
from ftgo_accounting.adapters.tables import ACCOUNTS
from ftgo_accounting.application import accounts
from ftgo_accounting.domain.account import AccountNotFound
from ftgo_accounting.http.schemas import AccountView, CreditLimitRequest, account_view

ConsumerId = Annotated[UuidStr, Path(alias="consumerId")]

router = JsonRouter(prefix="/accounts/{consumerId}", tags=["accounts"], responses=responses(404))


@router.get("")
async def get_account(consumer_id: ConsumerId, request: Request) -> AccountView:
    """The account and its newest 100 entries."""
    statement = await statement_of(consumer_id, request.app.state.engine)
    if statement is None:
        raise AccountNotFound(
            f"The consumer {consumer_id} has no account, or not yet: one just registered takes a moment."
        )
    return account_view(statement)


@router.put("/credit-limit")
async def put_credit_limit(consumer_id: ConsumerId, body: CreditLimitRequest, request: Request) -> AccountView:
    """Change the limit. What is authorized stands, even if it is more than the new limit."""
    limit = Money.of(body.credit_limit)
    return await _write(consumer_id, lambda uow: accounts.change_credit_limit(consumer_id, limit, uow), request)


@router.post("/disable")
async def disable_account(consumer_id: ConsumerId, request: Request) -> AccountView:
    """Authorize nothing more. May be repeated."""
    return await _write(consumer_id, lambda uow: accounts.disable_account(consumer_id, uow), request)


@router.post("/enable")
async def enable_account(consumer_id: ConsumerId, request: Request) -> AccountView:
    """Authorize again. May be repeated."""
    return await _write(consumer_id, lambda uow: accounts.enable_account(consumer_id, uow), request)


async def _write(consumer_id: str, use_case: Callable[[UnitOfWork], Awaitable[None]], request: Request) -> AccountView:
    await request.app.state.group_commit.submit(Operation(use_case, [lambda _: [(ACCOUNTS, consumer_id)]]))
    return await get_account(consumer_id, request)
