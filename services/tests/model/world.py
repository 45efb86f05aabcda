"""All four services in one process: their real handlers and sagas, databases in memory, and a Kafka that misbehaves.

What is real: use cases, command handlers, orchestrator, codec, replies, the rules of duplicate detection. What is not:
SQL, processes, time. A transaction is atomic here as well; between transactions anything may happen.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
from ftgo_accounting.adapters.tables import ACCOUNTS, AUTHORIZATIONS
from ftgo_accounting.domain.account import Account
from ftgo_accounting.domain.authorization import Authorization
from ftgo_accounting.messaging.command_handlers import COMMANDS as ACCOUNTING
from ftgo_consumer.adapters.tables import CONSUMERS_TO_READ
from ftgo_consumer.domain.consumer import Consumer
from ftgo_consumer.messaging.command_handlers import COMMANDS as CONSUMER
from ftgo_contracts.channels import (
    ACCOUNTING_COMMANDS,
    CANCEL_ORDER_REPLIES,
    CONSUMER_COMMANDS,
    CREATE_ORDER_REPLIES,
    KITCHEN_COMMANDS,
    REVISE_ORDER_REPLIES,
)
from ftgo_contracts.money import Money
from ftgo_kitchen.adapters.tables import RESTAURANTS_TO_READ, TICKETS
from ftgo_kitchen.domain.restaurant import Address, Restaurant
from ftgo_kitchen.domain.ticket import Ticket
from ftgo_kitchen.messaging.command_handlers import COMMANDS as KITCHEN
from ftgo_messaging import Message, MessageHandlers
from ftgo_messaging.consumer.tasks import decode
from ftgo_messaging.sagas import timeouts
from ftgo_messaging.sagas.instance import SagaInstance
from ftgo_messaging.testing.memory import Memory
from ftgo_messaging.transports.port import Record
from ftgo_order import sagas
from ftgo_order.adapters.replicas import CONSUMERS as CONSUMER_REPLICAS
from ftgo_order.adapters.replicas import RESTAURANTS, ConsumerReplica, RestaurantReplica
from ftgo_order.adapters.tables import ORDERS
from ftgo_order.domain.order import Order
from ftgo_order.domain.pricing import MenuItem
from ftgo_order.sagas import ORCHESTRATOR

RESTAURANT = "00000000-0000-7000-8000-0000000000aa"
CONSUMERS = ("00000000-0000-7000-8000-0000000000c1", "00000000-0000-7000-8000-0000000000c2")
DISHES = ("1", "2", "3")
PRICES = (10, 15, 7)
LIMIT = Money.of("45.00")
CREDIT = Money.of("50.00")

Key = tuple[str, str]


@dataclass
class Queue:
    """One key of one channel: a log, of which nothing is ever removed, and how far its consumer has come."""

    log: list[Message] = field(default_factory=list)
    position: int = 0


@dataclass
class Service:
    name: str
    memory: Memory
    handlers: MessageHandlers
    channels: frozenset[str]
    relayed: int = 0
    handled: set[str] = field(default_factory=set)


class World:
    """Reading a queue out of order is what a dead letter that is redriven later comes to."""

    def __init__(self) -> None:
        replies = {CREATE_ORDER_REPLIES.name, CANCEL_ORDER_REPLIES.name, REVISE_ORDER_REPLIES.name}
        self.order = Service("order", Memory("order"), sagas.handlers(), frozenset(replies))
        self.consumer = Service("consumer", Memory("consumer"), CONSUMER, frozenset({CONSUMER_COMMANDS.name}))
        self.kitchen = Service("kitchen", Memory("kitchen"), KITCHEN, frozenset({KITCHEN_COMMANDS.name}))
        self.accounting = Service("accounting", Memory("accounting"), ACCOUNTING, frozenset({ACCOUNTING_COMMANDS.name}))
        self.services = (self.order, self.consumer, self.kitchen, self.accounting)
        self.queues: dict[Key, Queue] = defaultdict(Queue)
        self.set_aside: list[Message] = []
        self._by_channel = {channel: s for s in self.services for channel in s.channels}
        self.menu: dict[str, MenuItem] = {}
        self.revise_menu(PRICES)
        address = Address("1 High St", None, "Oakland", "CA", "94611")
        self.kitchen.memory.put(RESTAURANTS_TO_READ, Restaurant.create(RESTAURANT, "Ajanta", address, ()))
        for consumer_id in CONSUMERS:
            consumer = Consumer.register(consumer_id, "A", "B", None, LIMIT)
            self.consumer.memory.put(CONSUMERS_TO_READ, consumer)
            account = Account.unopened(consumer_id)
            self.accounting.memory.put(ACCOUNTS, account.apply(account.open(CREDIT)))

    # -- what the owners do ----------------------------------------------------------------------------------------

    def revise_menu(self, prices: Sequence[int]) -> None:
        """Today's prices, dish by dish. A dish for nothing has left the menu."""
        dishes = zip(DISHES, prices, strict=True)
        self.menu = {d: MenuItem(d, f"Dish {d} for {price}", Money(price * 100)) for d, price in dishes if price}
        self.order.memory.put(RESTAURANTS, RestaurantReplica(RESTAURANT, "Ajanta", self.menu, 1))

    def block(self, consumer_id: str) -> None:
        """For good. Order may hear of it later, or never."""
        consumer = self.consumer.memory.get(CONSUMERS_TO_READ, consumer_id)
        self.consumer.memory.put(CONSUMERS_TO_READ, consumer.block())

    def is_blocked(self, consumer_id: str) -> bool:
        return self.consumer.memory.get(CONSUMERS_TO_READ, consumer_id).status == "BLOCKED"

    def order_hears_of_blocks(self) -> None:
        for consumer_id in CONSUMERS:
            status = self.consumer.memory.get(CONSUMERS_TO_READ, consumer_id).status
            self.order.memory.put(CONSUMER_REPLICAS, ConsumerReplica(consumer_id, "A", "B", status, 1))

    # -- the way of messages -----------------------------------------------------------------------------------

    def relay(self) -> None:
        """What is committed goes to Kafka, in the order of the outbox."""
        for service in self.services:
            for message in service.memory.messages[service.relayed :]:
                self._publish(message)
            service.relayed = len(service.memory.messages)

    def publish_again(self, message: Message) -> None:
        """A relay that did not get to its delete."""
        self._publish(message)

    def _publish(self, message: Message) -> None:
        if message.channel in self._by_channel:  # nobody of ours listens to these events
            self.queues[message.channel, message.key].log.append(message)

    def waiting(self) -> list[Key]:
        """In the order in which they were begun: ids are random, and a run must be the same when it is repeated."""
        return [key for key, queue in self.queues.items() if queue.position < len(queue.log)]

    async def deliver(self, key: Key) -> None:
        queue = self.queues[key]
        message = queue.log[queue.position]
        queue.position += 1
        await self.handle(message)

    def awaited(self, saga: SagaInstance) -> Key | None:
        """The queue in which the awaited command is the next one, if it is."""
        for key in self.waiting():
            queue = self.queues[key]
            if queue.log[queue.position].id == saga.awaited_command:
                return key
        return None

    def lose(self, key: Key) -> None:
        """The next message of the key becomes a dead letter, and those behind it pass."""
        queue = self.queues[key]
        self.set_aside.append(queue.log[queue.position])
        queue.position += 1

    async def handle(self, message: Message) -> None:
        """As the batch processor does: once per id, the reply in the same transaction. An error is an error here."""
        service = self._by_channel[message.channel]
        if message.id in service.handled:
            return
        headers = [(name, value.encode()) for name, value in message.headers.items()]
        received = Record(message.channel, message.key.encode(), headers, message.body, f"{message.channel}/0@0")
        task = decode(received, service.handlers)
        assert task is not None
        assert not task.error, task.error
        await service.memory.run(task.operation().run)
        service.handled.add(message.id)

    def crash(self, service: Service, back: int) -> None:
        """The process forgets what it has read; its groups begin at offsets that were committed earlier."""
        for (channel, _), queue in self.queues.items():
            if channel in service.channels:
                queue.position = max(0, queue.position - back)

    # -- sagas ---------------------------------------------------------------------------------------------------

    @property
    def sagas(self) -> list[SagaInstance]:
        return self._all(self.order, ORCHESTRATOR.instances)

    @property
    def unfinished(self) -> list[SagaInstance]:
        return [s for s in self.sagas if not s.state.final]

    async def overdue(self, saga: SagaInstance, attempts: int | None = None) -> None:
        """The time of its command is over, for the umpteenth time perhaps, and the reconciler passes by."""
        late = replace(saga, due_in=-1.0, attempts=attempts or saga.attempts)
        self.order.memory.put(ORCHESTRATOR.instances, late)
        await self.order.memory.run(lambda uow: timeouts.remind(ORCHESTRATOR, saga.saga_id, uow))

    async def settle(self) -> None:
        """The dust settles: everything is delivered, and whoever still waits is reminded, until nothing is left."""
        for message in self.set_aside:
            await self.handle(message)
        self.set_aside.clear()
        for _ in range(1000):
            self.relay()
            waiting = self.waiting()
            for key in waiting:
                await self.deliver(key)
            unfinished = self.unfinished
            if not waiting:
                for saga in unfinished:
                    await self.overdue(saga)
                if not unfinished:
                    return
        raise AssertionError(f"these never end: {self.unfinished}")

    # -- what must hold ----------------------------------------------------------------------------------------------

    @property
    def orders(self) -> list[Order]:
        return self._all(self.order, ORDERS)

    @property
    def authorizations(self) -> dict[str, Authorization]:
        return {a.order_id: a for a in self._all(self.accounting, AUTHORIZATIONS)}

    @property
    def tickets(self) -> dict[str, Ticket]:
        return {t.id: t for t in self._all(self.kitchen, TICKETS)}

    def _all(self, service: Service, kind: Any) -> list[Any]:
        return [aggregate for (k, _), aggregate in service.memory.aggregates.items() if k is kind]

    def check(self) -> None:
        """At every moment."""
        on_order = defaultdict(list)
        for saga in self.unfinished:
            on_order[msgspec.json.decode(saga.data)["orderId"]].append(saga.type)
        for order in self.orders:
            busy = on_order.pop(order.id, [])
            assert len(busy) == (0 if order.state.settled else 1), (order, busy)
        assert not on_order
        for account in self._all(self.accounting, ACCOUNTS):
            standing = [a for a in self.authorizations.values() if a.stands and a.consumer_id == account.consumer_id]
            assert account.authorized == sum((a.amount for a in standing), Money.zero())
            assert account.authorized <= account.credit_limit

    def check_settled(self) -> None:
        """When all is quiet, the services agree."""
        authorizations, tickets = self.authorizations, self.tickets
        for order in self.orders:
            authorization, ticket = authorizations.get(order.id), tickets.get(order.id)
            if order.state == "APPROVED":
                assert order.order_total <= LIMIT
                assert authorization is not None
                assert authorization.stands
                assert authorization.amount == order.order_total
                assert ticket is not None
                assert ticket.state not in {"CREATE_PENDING", "CANCELLED", "CANCEL_PENDING", "REVISION_PENDING"}
                lines = [(i.menu_item_id, i.quantity) for i in order.line_items]
                assert [(i.menu_item_id, i.quantity) for i in ticket.line_items] == lines
            else:
                assert order.state in {"REJECTED", "CANCELLED"}
                assert authorization is None or not authorization.stands
                assert ticket is None or ticket.state == "CANCELLED"
        for ticket_id in tickets:
            assert ticket_id in {order.id for order in self.orders}
