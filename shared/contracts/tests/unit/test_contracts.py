"""The published language: money is exact, every channel carries declared types, replies go where they may."""

from decimal import Decimal

import pytest
from ftgo_contracts import channels
from ftgo_contracts.accounting import commands as accounting
from ftgo_contracts.accounting import events as account_events
from ftgo_contracts.consumer import commands as consumer
from ftgo_contracts.consumer import events as consumer_events
from ftgo_contracts.kitchen import commands as kitchen
from ftgo_contracts.kitchen import events as kitchen_events
from ftgo_contracts.money import Money
from ftgo_contracts.order import events as order_events
from ftgo_messaging.messages import codec
from ftgo_messaging.runtime.errors import Undecodable
from hypothesis import given
from hypothesis import strategies as st

MODULES = [accounting, account_events, consumer, consumer_events, kitchen, kitchen_events, order_events]
ID = "0197a3c0-0000-7000-8000-000000000001"
amounts = st.integers(min_value=-(10**12) + 1, max_value=10**12 - 1).map(Money)  # cents, as many as a message may hold


@given(amounts)
def test_money_survives_the_wire(money: Money) -> None:
    if money >= Money.zero():
        assert Money.from_wire(money.to_wire()) == money
    assert Money.of(money.decimal) == money
    assert money.decimal == Decimal(str(money))


@given(amounts, amounts, st.integers(min_value=1, max_value=100))
def test_money_is_exact(a: Money, b: Money, times: int) -> None:
    assert (a + b) - b == a
    assert (a + b) * times == a * times + b * times
    assert (a < b) == (a.decimal < b.decimal)


@pytest.mark.parametrize("text", ["", "1.234", "1e3", "NaN", "1,00", " 1", "0x1", "1.", ".5", "--1", "1\n", "\u0661"])
def test_what_is_no_money_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not an amount"):
        Money.of(text)


@pytest.mark.parametrize("text", ["-0.01", "-5.00", "12345678901.00", 5, 5.0, None])
def test_no_message_speaks_of_less_than_nothing(text: object) -> None:
    with pytest.raises(ValueError, match="not an amount"):
        Money.from_wire(text)


def test_money_is_immutable_and_hashable() -> None:
    with pytest.raises(AttributeError):
        Money(1).minor_units = 2  # type: ignore[misc]
    assert {Money(1), Money(1), Money(2)} == {Money(1), Money(2)}
    assert Money(100) != 100
    assert Money(1) <= Money(1) < Money(2)


def test_on_the_wire_money_is_a_string_and_names_are_camel_case() -> None:
    authorize = accounting.AuthorizePayment(consumer_id=ID, order_id=ID, amount=Money.of("61.70"))
    wire = f'{{"consumerId":"{ID}","orderId":"{ID}","amount":"61.70"}}'
    assert codec.encode(authorize).decode() == wire
    assert codec.decode(wire, accounting.AuthorizePayment) == authorize


def test_channels_carry_the_types_of_the_contract() -> None:
    carried = {c.name: sorted(n.rsplit(".", 1)[1] for n in c.types) for c in channels.ALL_CHANNELS}
    assert carried["consumer.commands"] == ["NotifyConsumer", "VerifyConsumer"]
    assert len(carried["kitchen.commands"]) == 9
    assert len(carried["accounting.commands"]) == 3
    assert len(carried["ticket.events"]) == 7
    assert len(carried["account.events"]) == 6
    assert len(carried["order.events"]) == 6
    assert len(set(carried)) == len(channels.ALL_CHANNELS) == 11


def test_a_command_survives_the_wire_and_is_keyed_by_its_aggregate() -> None:
    create = kitchen.CreateTicket(
        order_id=ID, restaurant_id=ID, line_items=(kitchen.TicketLineItem("1", "Chicken Vindaloo", 2),)
    )
    assert codec.decode(codec.encode(create), kitchen.CreateTicket) == create
    assert channels.KITCHEN_COMMANDS.key is not None
    assert channels.KITCHEN_COMMANDS.key(create) == ID
    assert channels.KITCHEN_COMMANDS.key(kitchen.ConfirmCreateTicket(ticket_id="t")) == "t"


@pytest.mark.parametrize(
    "body",
    [
        f'{{"consumerId": "{ID}", "orderId": "{ID}", "amount": "1.234"}}',
        f'{{"consumerId": "{ID}", "orderId": "{ID}", "amount": 12}}',
        f'{{"consumerId": "{ID}", "orderId": "{ID}", "amount": {{"minor_units": 123}}}}',
        f'{{"consumerId": "no id", "orderId": "{ID}", "amount": "1.23"}}',
        f'{{"consumerId": "{ID}\\n", "orderId": "{ID}", "amount": "1.23"}}',
    ],
)
def test_bad_fields_are_undecodable(body: str) -> None:
    with pytest.raises(Undecodable):
        codec.decode(body, accounting.AuthorizePayment)


def test_money_is_a_string_on_the_wire() -> None:
    """Golden bytes: what other languages read."""
    command = accounting.AuthorizePayment(consumer_id=ID, order_id=ID, amount=Money.of("61.7"))
    wire = codec.encode(command)
    assert wire == f'{{"consumerId":"{ID}","orderId":"{ID}","amount":"61.70"}}'.encode()
    assert codec.decode(wire, accounting.AuthorizePayment) == command
