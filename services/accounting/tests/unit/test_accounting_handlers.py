"""Commands and events of accounting, over a unit of work in memory."""

import pytest
from ftgo_accounting.adapters.tables import ACCOUNTS, AUTHORIZATIONS, account_entries
from ftgo_accounting.application import accounts
from ftgo_accounting.domain.account import AccountNotFound
from ftgo_accounting.domain.authorization import AuthorizationState, NotAuthorized
from ftgo_accounting.messaging.command_handlers import authorize_payment, reverse_authorization, revise_authorization
from ftgo_accounting.messaging.event_handlers import on_consumer_registered
from ftgo_contracts.accounting import events
from ftgo_contracts.accounting.commands import AuthorizePayment, ReverseAuthorization, ReviseAuthorization
from ftgo_contracts.accounting.replies import PaymentAuthorized, PaymentDeclined
from ftgo_contracts.consumer.events import ConsumerRegistered, PersonName
from ftgo_contracts.money import Money
from ftgo_messaging import Message, Success, new_id
from ftgo_messaging.messages.message import SAGA_ID
from ftgo_messaging.testing.memory import Memory

ASHA, ORDER, OTHER = new_id(), new_id(), new_id()
REGISTERED = ConsumerRegistered(consumer_id=ASHA, name=PersonName("Asha", "Rao"), status="ACTIVE")


@pytest.fixture
def memory() -> Memory:
    return Memory("accounting")


def authorize(amount: str, order: str = ORDER):
    command = AuthorizePayment(consumer_id=ASHA, order_id=order, amount=Money.of(amount))
    return lambda uow: authorize_payment(command, uow)


def revise(amount: str, saga: str | None = None):
    command = ReviseAuthorization(consumer_id=ASHA, order_id=ORDER, amount=Money.of(amount))
    message = Message(new_id(), "accounting.commands", ASHA, {SAGA_ID: saga or new_id()}, b"")
    return lambda uow: revise_authorization(command, uow, message)


def reverse():
    return lambda uow: reverse_authorization(ReverseAuthorization(consumer_id=ASHA, order_id=ORDER), uow)


def entries(memory):
    return [row["type"] for table, row in memory.appended if table is account_entries]


async def test_a_payment_opens_the_account_and_the_late_registration_changes_nothing(memory):
    reply = await memory.run(authorize("61.70"))
    assert reply == PaymentAuthorized(authorization_id=memory.get(AUTHORIZATIONS, ORDER).id)
    assert entries(memory) == ["ACCOUNT_OPENED", "PAYMENT_AUTHORIZED"]
    assert [type(event) for event in memory.sent()] == [events.AccountOpened, events.PaymentAuthorized]
    await memory.run(lambda uow: on_consumer_registered(REGISTERED, uow))
    assert entries(memory) == ["ACCOUNT_OPENED", "PAYMENT_AUTHORIZED"]
    account = memory.get(ACCOUNTS, ASHA)
    assert (account.credit_limit, account.authorized) == (Money.of("1000.00"), Money.of("61.70"))


async def test_a_registration_opens_the_account(memory):
    await memory.run(lambda uow: on_consumer_registered(REGISTERED, uow))
    (opened,) = memory.sent()
    assert opened == events.AccountOpened(account_id=ASHA, consumer_id=ASHA, credit_limit=Money.of("1000.00"))


async def test_asking_again_gives_the_same_authorization(memory):
    first = await memory.run(authorize("61.70"))
    assert await memory.run(authorize("61.70")) == first
    assert memory.get(ACCOUNTS, ASHA).authorized == Money.of("61.70")


async def test_too_much_is_declined_and_leaves_a_note_only(memory):
    assert await memory.run(authorize("1000.01")) == PaymentDeclined(reason="INSUFFICIENT_CREDIT")
    assert memory.get(AUTHORIZATIONS, ORDER).state is AuthorizationState.DECLINED
    assert (len(memory.aggregates), memory.appended, memory.messages) == (1, [], [])


async def test_a_declined_payment_stays_declined(memory):
    """The command once more, out of a dead letter, after the order was rejected and the credit limit raised."""
    await memory.run(lambda uow: accounts.open_account(ASHA, uow))
    assert await memory.run(authorize("1000.01")) == PaymentDeclined(reason="INSUFFICIENT_CREDIT")
    await memory.run(lambda uow: accounts.change_credit_limit(ASHA, Money.of("5000.00"), uow))
    assert await memory.run(authorize("1000.01")) == PaymentDeclined(reason="INSUFFICIENT_CREDIT")
    assert await memory.run(reverse()) == Success()
    assert memory.get(ACCOUNTS, ASHA).authorized == Money.zero()


async def test_a_revision_is_decided_once(memory):
    """The commands of sagas that are over, out of a dead letter: they change nothing any more."""
    await memory.run(authorize("60.00"))
    assert await memory.run(revise("80.00", "a")) == Success()
    assert await memory.run(revise("20.00", "b")) == Success()
    assert await memory.run(revise("1000.01", "c")) == PaymentDeclined(reason="INSUFFICIENT_CREDIT")
    await memory.run(lambda uow: accounts.change_credit_limit(ASHA, Money.of("5000.00"), uow))
    assert await memory.run(revise("80.00", "a")) == Success()
    assert await memory.run(revise("1000.01", "c")) == PaymentDeclined(reason="INSUFFICIENT_CREDIT")
    assert memory.get(ACCOUNTS, ASHA).authorized == memory.get(AUTHORIZATIONS, ORDER).amount == Money.of("20.00")


async def test_credit_runs_out(memory):
    await memory.run(authorize("600.00"))
    assert await memory.run(authorize("400.01", OTHER)) == PaymentDeclined(reason="INSUFFICIENT_CREDIT")
    assert isinstance(await memory.run(authorize("400.00", new_id())), PaymentAuthorized)


async def test_a_disabled_account_declines_until_it_is_enabled(memory):
    await memory.run(lambda uow: accounts.open_account(ASHA, uow))
    await memory.run(lambda uow: accounts.disable_account(ASHA, uow))
    await memory.run(lambda uow: accounts.disable_account(ASHA, uow))
    assert await memory.run(authorize("1.00")) == PaymentDeclined(reason="DISABLED")
    await memory.run(lambda uow: accounts.enable_account(ASHA, uow))
    assert isinstance(await memory.run(authorize("1.00", OTHER)), PaymentAuthorized)
    assert entries(memory) == ["ACCOUNT_OPENED", "ACCOUNT_DISABLED", "ACCOUNT_ENABLED", "PAYMENT_AUTHORIZED"]


async def test_a_reversal_gives_the_credit_back_once(memory):
    await memory.run(authorize("61.70"))
    assert await memory.run(reverse()) == Success()
    assert await memory.run(reverse()) == Success()
    assert memory.get(ACCOUNTS, ASHA).authorized == Money.zero()
    assert entries(memory).count("AUTHORIZATION_REVERSED") == 1
    assert await memory.run(authorize("61.70")) == PaymentDeclined(reason="DISABLED")


async def test_a_reversal_that_comes_first_makes_the_late_authorization_harmless(memory):
    assert await memory.run(reverse()) == Success()
    assert memory.get(AUTHORIZATIONS, ORDER).state is AuthorizationState.REVERSED
    assert entries(memory) == []
    assert await memory.run(authorize("61.70")) == PaymentDeclined(reason="DISABLED")
    assert isinstance(await memory.run(authorize("61.70", OTHER)), PaymentAuthorized)


async def test_a_revision_moves_the_difference(memory):
    await memory.run(authorize("60.00"))
    assert await memory.run(revise("80.00")) == Success()
    assert await memory.run(revise("80.00")) == Success()
    assert memory.get(ACCOUNTS, ASHA).authorized == Money.of("80.00")
    assert entries(memory).count("AUTHORIZATION_REVISED") == 1
    assert await memory.run(revise("1000.01")) == PaymentDeclined(reason="INSUFFICIENT_CREDIT")
    assert await memory.run(revise("20.00")) == Success()
    assert memory.get(ACCOUNTS, ASHA).authorized == Money.of("20.00")
    await memory.run(reverse())
    assert memory.get(ACCOUNTS, ASHA).authorized == Money.zero()


async def test_what_is_not_authorized_cannot_be_revised(memory):
    with pytest.raises(NotAuthorized):
        await memory.run(revise("80.00"))


async def test_an_account_that_does_not_exist(memory):
    with pytest.raises(AccountNotFound):
        await memory.run(lambda uow: accounts.change_credit_limit(ASHA, Money.of("1.00"), uow))


async def test_nobody_pays_or_is_credited_for_the_order_of_another(memory):
    """No refusal, and no answer: such a command becomes a dead letter."""
    await memory.run(authorize("61.70"))
    mallory = new_id()
    await memory.run(
        lambda uow: authorize_payment(
            AuthorizePayment(consumer_id=mallory, order_id=OTHER, amount=Money.of("70.00")), uow
        )
    )
    told = len(memory.messages)
    message = Message(new_id(), "accounting.commands", mallory, {SAGA_ID: new_id()}, b"")
    reverse_it = ReverseAuthorization(consumer_id=mallory, order_id=ORDER)
    revise_it = ReviseAuthorization(consumer_id=mallory, order_id=ORDER, amount=Money.of("1.00"))
    authorize_it = AuthorizePayment(consumer_id=mallory, order_id=ORDER, amount=Money.of("61.70"))
    for work in (
        lambda uow: reverse_authorization(reverse_it, uow),
        lambda uow: revise_authorization(revise_it, uow, message),
        lambda uow: authorize_payment(authorize_it, uow),
    ):
        with pytest.raises(ValueError, match=mallory):
            await memory.run(work)
    assert memory.get(ACCOUNTS, mallory).authorized == Money.of("70.00")
    assert memory.get(ACCOUNTS, ASHA).authorized == Money.of("61.70")
    assert len(memory.messages) == told
