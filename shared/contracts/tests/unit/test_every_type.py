"""Every declared type, found through the channels and the modules of replies: it survives the wire."""

import re
import typing
from datetime import UTC, datetime
from types import ModuleType, NoneType, UnionType
from typing import Any

import msgspec
import pytest
from ftgo_contracts import channels
from ftgo_contracts.accounting import commands as accounting_commands
from ftgo_contracts.accounting import events as accounting_events
from ftgo_contracts.accounting import replies as accounting_replies
from ftgo_contracts.consumer import commands as consumer_commands
from ftgo_contracts.consumer import events as consumer_events
from ftgo_contracts.consumer import replies as consumer_replies
from ftgo_contracts.kitchen import commands as kitchen_commands
from ftgo_contracts.kitchen import events as kitchen_events
from ftgo_contracts.kitchen import replies as kitchen_replies
from ftgo_contracts.money import Money
from ftgo_contracts.order import events as order_events
from ftgo_contracts.types import Id, Quantity
from ftgo_messaging import Failure, Kind, Reply
from ftgo_messaging.messages import codec
from ftgo_messaging.messages.registry import by_class, by_name
from hypothesis import given
from hypothesis import strategies as st

DECLARING = (
    accounting_commands, accounting_events, consumer_commands, consumer_events, kitchen_commands, kitchen_events,
    order_events,
)  # fmt: skip
CARRIED = [t.cls for c in channels.ALL_CHANNELS for t in c.types.values()]


def _replies(module: ModuleType) -> list[type[Reply]]:
    own = [v for v in vars(module).values() if isinstance(v, type) and v.__module__ == module.__name__]
    return [v for v in own if issubclass(v, Reply)]


REPLIES = [r for module in (accounting_replies, consumer_replies, kitchen_replies) for r in _replies(module)]

LEAVES: dict[Any, st.SearchStrategy[Any]] = {
    Id: st.uuids().map(str),
    Quantity: st.integers(1, 100),
    Money: st.integers(0, 10**12 - 1).map(Money),
    str: st.text(),
    datetime: st.datetimes(timezones=st.just(UTC)),
}


def values(kind: Any) -> st.SearchStrategy[Any]:
    """Values of a field's type, or of a whole message."""
    if kind in LEAVES:
        return LEAVES[kind]
    if typing.get_origin(kind) is tuple:
        return st.lists(values(typing.get_args(kind)[0]), max_size=4).map(tuple)
    if isinstance(kind, UnionType):
        return st.one_of(st.none() if option is NoneType else values(option) for option in typing.get_args(kind))
    hints = typing.get_type_hints(kind, include_extras=True)
    return st.builds(kind, **{f.name: values(hints[f.name]) for f in msgspec.structs.fields(kind)})


def test_every_message_of_the_modules_is_declared_on_a_channel() -> None:
    """A forgotten decorator would show only when the message is sent."""
    messages = {v for m in DECLARING for v in vars(m).values() if isinstance(v, type) and v.__module__ == m.__name__}
    undeclared = {v.__name__ for v in messages - set(CARRIED)}
    bases = {"AccountEvent", "ConsumerEvent", "RestaurantEvent", "TicketEvent", "OrderEvent"}
    assert undeclared == bases | {"MenuItem", "OrderLineItem", "PersonName", "TicketLineItem"}
    assert (len(CARRIED), len(REPLIES)) == (39, 6)


@pytest.mark.parametrize("cls", [*CARRIED, *REPLIES], ids=lambda c: by_class(c).name)
@given(data=st.data())
def test_it_survives_the_wire(cls: type[msgspec.Struct], data: st.DataObject) -> None:
    body = data.draw(values(cls))
    assert codec.decode(codec.encode(body), cls) == body


@pytest.mark.parametrize("cls", [*CARRIED, *REPLIES], ids=lambda c: by_class(c).name)
def test_its_wire_name_is_its_own_and_no_python_path(cls: type[msgspec.Struct]) -> None:
    kind = by_class(cls)
    assert by_name(kind.name).cls is cls
    middle = r"\.reply" if kind.kind is Kind.REPLY else ""
    assert re.fullmatch(rf"ftgo\.(consumer|kitchen|accounting|order){middle}\.{cls.__name__}", kind.name)


COMMANDS_OF_SAGAS: dict[str, set[type[msgspec.Struct]]] = {
    "order.create-order.replies": {
        consumer_commands.VerifyConsumer,
        kitchen_commands.CreateTicket,
        kitchen_commands.CancelCreateTicket,
        kitchen_commands.ConfirmCreateTicket,
        accounting_commands.AuthorizePayment,
        accounting_commands.ReverseAuthorization,
    },
    "order.cancel-order.replies": {
        kitchen_commands.BeginCancelTicket,
        kitchen_commands.UndoBeginCancelTicket,
        kitchen_commands.ConfirmCancelTicket,
        accounting_commands.ReverseAuthorization,
    },
    "order.revise-order.replies": {
        consumer_commands.VerifyConsumer,
        kitchen_commands.BeginReviseTicket,
        kitchen_commands.UndoBeginReviseTicket,
        kitchen_commands.ConfirmReviseTicket,
        accounting_commands.ReviseAuthorization,
    },
}
COMMANDS = [c for c in CARRIED if by_class(c).kind is Kind.COMMAND]


@pytest.mark.parametrize("cls", COMMANDS)
def test_a_command_is_answered_on_the_channel_of_its_saga(cls: type[msgspec.Struct]) -> None:
    expected = {channel for channel, commands in COMMANDS_OF_SAGAS.items() if cls in commands}
    assert by_class(cls).reply_channels == expected
    assert bool(expected) == (cls is not consumer_commands.NotifyConsumer)


@pytest.mark.parametrize("cls", COMMANDS)
@given(data=st.data())
def test_a_command_is_keyed_by_the_aggregate_that_it_changes(cls: type[msgspec.Struct], data: st.DataObject) -> None:
    kind, body = by_class(cls), data.draw(values(cls))
    assert kind.key is not None
    of_ticket = "order_id" if hasattr(body, "order_id") else "ticket_id"
    of_kitchen = kind.channel == channels.KITCHEN_COMMANDS.name
    assert kind.key(body) == getattr(body, of_ticket if of_kitchen else "consumer_id")


def test_a_refusal_is_a_failure() -> None:
    assert issubclass(accounting_replies.PaymentDeclined, Failure)
    assert issubclass(consumer_replies.ConsumerVerificationFailed, Failure)
    assert issubclass(kitchen_replies.TicketRefused, Failure)


def test_a_newer_sender_may_add_fields() -> None:
    sent = {
        "consumerId": "0197a3c0-0000-7000-8000-000000000001",
        "name": {"firstName": "A", "lastName": "B", "added": 1},
        "status": "ACTIVE",
        "added": [],
    }
    read = codec.decode(codec.encode(sent), consumer_events.ConsumerRegistered)
    assert read.name == consumer_events.PersonName("A", "B")
