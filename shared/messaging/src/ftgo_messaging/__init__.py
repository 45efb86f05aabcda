"""Transactional messaging between services: outbox, idempotent consumers, commands, replies, events, sagas.

These are the names with which a service is written, on any broker. What a service is composed of besides (relays, loops
of upkeep, tests' tools) is in the rooms: see README.md.
"""

from ftgo_messaging.consumer.handlers import MessageHandlers
from ftgo_messaging.consumer.runner import ChannelConsumer
from ftgo_messaging.gathering.collector import Collector
from ftgo_messaging.messages.channel import Channel
from ftgo_messaging.messages.commands import Command
from ftgo_messaging.messages.documents import Document
from ftgo_messaging.messages.events import DomainEvent
from ftgo_messaging.messages.ids import new_id
from ftgo_messaging.messages.message import Kind, Message
from ftgo_messaging.messages.registry import reply_type
from ftgo_messaging.messages.replies import Failure, Reply, Success
from ftgo_messaging.runtime.errors import DomainError, TransientError
from ftgo_messaging.sagas.definition import Saga, SagaStep, StepKind
from ftgo_messaging.sagas.orchestrator import Orchestrator
from ftgo_messaging.transaction.aggregates import Aggregates, Refs
from ftgo_messaging.transaction.transactions import GroupCommit, Operation, Transactions
from ftgo_messaging.transaction.unit_of_work import UnitOfWork
from ftgo_messaging.transports import transport_at
from ftgo_messaging.transports.port import BrokerRefuses
from ftgo_messaging.upkeep.tables import messaging_tables

__all__ = [
    "Aggregates",
    "BrokerRefuses",
    "Channel",
    "ChannelConsumer",
    "Collector",
    "Command",
    "Document",
    "DomainError",
    "DomainEvent",
    "Failure",
    "GroupCommit",
    "Kind",
    "Message",
    "MessageHandlers",
    "Operation",
    "Orchestrator",
    "Refs",
    "Reply",
    "Saga",
    "SagaStep",
    "StepKind",
    "Success",
    "Transactions",
    "TransientError",
    "UnitOfWork",
    "messaging_tables",
    "new_id",
    "reply_type",
    "transport_at",
]
