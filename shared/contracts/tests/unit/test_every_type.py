"""Every declared type, found through the channels and the modules of replies: it survives the wire."""

import re
import typing
from datetime import UTC, datetime
from types import ModuleType
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
from ftgo_messaging import codec
from ftgo_messaging.message import Kind
from ftgo_messaging.registry import by_class, by_name
from ftgo_messaging.replies import Failure, Reply
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
    Money: st.integers(-(10**13), 10**13).map(Money),
    str: st.text(),
    datetime: st.datetimes(timezones=st.just(UTC)),
}


def values(kind: Any) -> st.SearchStrategy[Any]:
    """Values of a field's type, or of a whole message."""
    if kind in LEAVES:
        return LEAVES[kind]
    if typing.get_origin(kind) is tuple:
        return st.lists(values(typing.get_args(kind)[0]), max_size=4).map(tuple)
    hints = typing.get_type_hints(kind, include_extras=True)
    return st.builds(kind, **{f.name: values(hints[f.name]) for f in msgspec.structs.fields(kind)})


def test_all_declared_types_are_looked_at() -> None:
    declared = [
        v
        for module in DECLARING
        for v in vars(module).values()
        if isinstance(v, type) and v.__module__ == module.__name__ and f"{v.__name__}" not in
        {"AccountEvent", "ConsumerEvent", "RestaurantEvent", "TicketEvent", "OrderEvent"}
        and not v.__name__.endswith(("LineItem", "MenuItem", "PersonName"))
    ]  # fmt: skip
    assert sorted(map(str, declared)) == sorted(map(str, CARRIED))
    assert len(CARRIED) == 2 + 9 + 3 + 4 + 2 + 7 + 6 + 6
    assert len(REPLIES) == 6


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


@pytest.mark.parametrize("cls", [c for c in CARRIED if by_class(c).kind is Kind.COMMAND])
@given(data=st.data())
def test_a_command_is_keyed_by_an_id_and_answered_on_the_channel_of_its_saga(
    cls: type[msgspec.Struct], data: st.DataObject
) -> None:
    kind, body = by_class(cls), data.draw(values(cls))
    assert kind.channel is not None
    assert kind.channel.key is not None
    assert kind.channel.key(body) in {getattr(body, f) for f in body.__struct_fields__ if f.endswith("_id")}
    saga = next((s for s in ("Revis", "Cancel", "Reverse") if s in cls.__name__), "Create")
    expected = {
        "Revis": {"order.revise-order.replies"},
        "Cancel": {"order.cancel-order.replies"},
        "Reverse": {"order.cancel-order.replies"},
        "Create": {"order.create-order.replies"},
    }[saga]
    if cls is consumer_commands.NotifyConsumer:
        expected = set()
    if cls is kitchen_commands.CancelCreateTicket:
        expected = {"order.create-order.replies"}
    assert kind.reply_channels == expected


def test_a_refusal_is_a_failure() -> None:
    assert issubclass(accounting_replies.PaymentDeclined, Failure)
    assert issubclass(consumer_replies.ConsumerVerificationFailed, Failure)
    assert issubclass(kitchen_replies.TicketRefused, Failure)


def test_a_newer_sender_may_add_fields() -> None:
    text = '{"consumerId":"0197a3c0-0000-7000-8000-000000000001","name":{"firstName":"A","lastName":"B","x":1},"status":"ACTIVE","y":[]}'
    assert codec.decode(text, consumer_events.ConsumerRegistered).name == consumer_events.PersonName("A", "B")
