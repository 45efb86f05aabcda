"""Orders that are created, cancelled and revised while messages come in any order, twice, late, and processes crash.

No service imports another, so this stands beside them: a test may put together what the sources must not. Hypothesis
chooses what happens; a failure prints the shortest list of steps that it has found. The choice is the same in every
run; ``--hypothesis-seed=N`` makes another.
"""

import asyncio
import contextlib
import os
from collections.abc import Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any

import hypothesis
import pytest
from ftgo_kitchen.application import tickets
from ftgo_kitchen.domain.ticket import TicketNotFound
from ftgo_kitchen.domain.ticket import WrongState as WrongTicketState
from ftgo_messaging import new_id
from ftgo_messaging.sagas import timeouts
from ftgo_order.application.cancel_order import cancel_order
from ftgo_order.application.create_order import CreateOrder, put_order
from ftgo_order.application.refusals import ConsumerIsBlocked
from ftgo_order.application.revise_order import revise_order
from ftgo_order.domain.order import Address, Delivery, WrongState
from ftgo_order.domain.pricing import RequestedLineItem, UnknownMenuItem
from ftgo_order.sagas import ORCHESTRATOR
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from reference import Reference
from world import CONSUMERS, DISHES, RESTAURANT, World

DELIVERY = Delivery(datetime(2030, 1, 1, tzinfo=UTC), Address("1 Main Street", None, "Oakland", "CA", "94611"))

pick = st.integers(0, 10**6)
lines = st.lists(st.builds(RequestedLineItem, st.sampled_from(DISHES), st.integers(1, 3)), min_size=1, max_size=2).map(
    tuple
)


class Orders(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.world = World()
        self.reference = Reference()

    @initialize(orders=st.lists(st.tuples(st.sampled_from(CONSUMERS), lines), max_size=2))
    def begin(self, orders: list[tuple[str, tuple[RequestedLineItem, ...]]]) -> None:
        for consumer, items in orders:
            self.create(consumer, items)
        self.deliver_all()

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        result = self.loop.run_until_complete(work)
        self.world.relay()
        return result

    def teardown(self) -> None:
        try:
            self.run(self.world.settle())
            self.holds()
            self.world.check_settled()
        finally:
            self.loop.close()

    @invariant()
    def holds(self) -> None:
        self.world.check()
        for order in self.world.orders:
            self.reference.check(order)

    # -- what people do --------------------------------------------------------------------------------------------

    @precondition(lambda self: len(self.world.orders) < 3)
    @rule(consumer=st.sampled_from(CONSUMERS), items=lines)
    def create(self, consumer: str, items: tuple[RequestedLineItem, ...]) -> None:
        request, order_id = CreateOrder(consumer, RESTAURANT, DELIVERY, items), new_id()
        with contextlib.suppress(ConsumerIsBlocked, UnknownMenuItem):
            self.run(self.world.order.memory.run(lambda uow: put_order(request, order_id, uow)))
            self.reference.created(order_id, items, self.world.menu)

    @precondition(lambda self: self.world.orders)
    @rule(n=pick)
    def cancel(self, n: int) -> None:
        order = self._one(self.world.orders, n)
        with contextlib.suppress(WrongState):
            self.run(self.world.order.memory.run(lambda uow: cancel_order(order.id, uow)))

    @precondition(lambda self: self.world.orders)
    @rule(n=pick, items=lines)
    def revise(self, n: int, items: tuple[RequestedLineItem, ...]) -> None:
        order = self._one(self.world.orders, n)
        menu, blocked = self.world.menu, self.world.is_blocked(order.consumer_id)
        try:
            self.run(self.world.order.memory.run(lambda uow: revise_order(order.id, items, uow)))
        except UnknownMenuItem:
            assert not self.reference.may_revise(order.id, items, menu)
        except (WrongState, ConsumerIsBlocked):
            pass
        else:
            assert self.reference.may_revise(order.id, items, menu)
            self.reference.proposed(order.id, items, menu, blocked)

    @rule(prices=st.tuples(*(st.integers(0, 15) for _ in DISHES)))
    def revise_menu(self, prices: tuple[int, ...]) -> None:
        self.world.revise_menu(prices)

    @rule(consumer=st.sampled_from(CONSUMERS), heard=st.booleans())
    def block(self, consumer: str, heard: bool) -> None:
        self.world.block(consumer)
        if heard:
            self.world.order_hears_of_blocks()

    @precondition(lambda self: self.world.tickets)
    @rule(n=pick, prepare=st.booleans())
    def cook(self, n: int, prepare: bool) -> None:
        ticket = self._one(list(self.world.tickets.values()), n)
        soon = datetime.now(UTC) + timedelta(hours=1)
        with contextlib.suppress(WrongTicketState, TicketNotFound):
            if prepare:
                self.run(self.world.kitchen.memory.run(lambda uow: tickets.start_preparing(ticket.id, uow)))
            else:
                self.run(self.world.kitchen.memory.run(lambda uow: tickets.accept(ticket.id, soon, uow)))

    # -- what messages do --------------------------------------------------------------------------------------------

    @precondition(lambda self: self.world.waiting())
    @rule(n=pick, many=st.integers(1, 8))
    def deliver(self, n: int, many: int) -> None:
        for _ in range(many):
            if waiting := self.world.waiting():
                self.run(self.world.deliver(self._one(waiting, n)))

    @precondition(lambda self: self.world.waiting())
    @rule()
    def deliver_all(self) -> None:
        while waiting := self.world.waiting():
            for key in waiting:
                self.run(self.world.deliver(key))

    @precondition(lambda self: self.world.queues)
    @rule(n=pick, m=pick)
    def publish_again(self, n: int, m: int) -> None:
        queue = self._one(list(self.world.queues.values()), n)
        self.world.publish_again(self._one(queue.log, m))

    @precondition(lambda self: self.world.waiting())
    @rule(n=pick)
    def set_aside(self, n: int) -> None:
        self.world.lose(self._one(self.world.waiting(), n))

    @precondition(lambda self: self.world.unfinished)
    @rule(n=pick, new=st.booleans(), rounds=st.integers(0, 8))
    def a_command_is_lost(self, n: int, new: bool, rounds: int) -> None:
        """After some time, an awaited command becomes a dead letter; the saga times out, or is made to ask anew. Then
        all goes well."""
        for _ in range(rounds):
            for key in self.world.waiting():
                self.run(self.world.deliver(key))
        asking = [s for s in self.world.unfinished if self.world.awaited(s)]
        if not asking:
            return
        saga = self._one(asking, n)
        self.world.lose(self.world.awaited(saga) or ("", ""))
        if new:
            self.run(
                self.world.order.memory.run(lambda uow: timeouts.retry(ORCHESTRATOR, saga.saga_id, uow, new_id=True))
            )
        else:
            self.run(self.world.overdue(saga, attempts=100))
        self.deliver_all()

    @precondition(lambda self: self.world.set_aside)
    @rule(n=pick)
    def redrive(self, n: int) -> None:
        self.run(self.world.handle(self.world.set_aside.pop(n % len(self.world.set_aside))))

    # -- what machines and operators do ------------------------------------------------------------------------------

    @rule(n=pick, back=st.integers(1, 5))
    def crash(self, n: int, back: int) -> None:
        self.world.crash(self._one(list(self.world.services), n), back)

    @precondition(lambda self: self.world.unfinished)
    @rule(n=pick)
    def remind(self, n: int) -> None:
        self.run(self.world.overdue(self._one(self.world.unfinished, n)))

    @precondition(lambda self: self.world.unfinished)
    @rule(n=pick)
    def time_out(self, n: int) -> None:
        self.run(self.world.overdue(self._one(self.world.unfinished, n), attempts=100))

    @precondition(lambda self: self.world.unfinished)
    @rule(n=pick, new=st.booleans())
    def operator_retries(self, n: int, new: bool) -> None:
        saga = self._one(self.world.unfinished, n)
        self.run(self.world.order.memory.run(lambda uow: timeouts.retry(ORCHESTRATOR, saga.saga_id, uow, new_id=new)))

    @precondition(lambda self: self.world.unfinished)
    @rule(n=pick)
    def operator_turns_back(self, n: int) -> None:
        saga = self._one(self.world.unfinished, n)
        with contextlib.suppress(timeouts.PastItsPivot):
            self.run(self.world.order.memory.run(lambda uow: timeouts.compensate(ORCHESTRATOR, saga.saga_id, uow)))

    def _one(self, things: Any, n: int) -> Any:
        return things[n % len(things)]


TestOrders = Orders.TestCase
TestOrders.pytestmark = [
    pytest.mark.timeout(600)
]  # seconds when it is green; a failure is made short, which takes long
TestOrders.settings = hypothesis.settings(
    max_examples=int(os.environ.get("FTGO_MODEL_EXAMPLES", "200")),
    stateful_step_count=40,
    deadline=None,
    derandomize="FTGO_MODEL_EXAMPLES" not in os.environ,
    suppress_health_check=list(hypothesis.HealthCheck),
)
