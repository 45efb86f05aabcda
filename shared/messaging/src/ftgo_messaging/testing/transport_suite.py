"""The conformance suite: what a transport promises, it has to show here. A new adapter subclasses ``TransportSuite``.

    class TestValkey(TransportSuite):
        @pytest.fixture(scope="class")
        async def subject(self) -> AsyncIterator[Subject]: ...

Each test asks for the traits that it needs; where a broker does not promise one, the test is skipped and says so. Sizes
and times are attributes of the class. Figures go to the file that FTGO_BROKER_RESULTS names.
"""

import os
from collections.abc import AsyncIterator, Iterable
from typing import Protocol

import pytest

from ftgo_messaging.testing.suite.faults import Faults
from ftgo_messaging.testing.suite.fidelity import Fidelity
from ftgo_messaging.testing.suite.hands import Hands
from ftgo_messaging.testing.suite.hardships import Hardships
from ftgo_messaging.testing.suite.kinds import KindsOfChannel
from ftgo_messaging.testing.suite.members import OnServer, Subject, Wire
from ftgo_messaging.testing.suite.order import Order
from ftgo_messaging.testing.suite.readers import Readers
from ftgo_messaging.testing.suite.services import Services

__all__ = ["OnServer", "Subject", "TransportSuite"]


class ServiceDatabases(Protocol):
    """As ``ftgo_local.postgres.Postgres`` is."""

    async def create_service_databases(self, services: Iterable[str]) -> dict[str, str]: ...


class TransportSuite(KindsOfChannel, Readers, Fidelity, Order, Hands, Faults, Services, Hardships):
    """All tests. ``subject`` is a fixture of the subclass (``OnServer`` makes one of a server of ``ftgo_local``)."""

    away_seconds = float(os.environ.get("FTGO_BROKER_AWAY", "5"))
    waiting = int(os.environ.get("FTGO_BROKER_WAITING", "100000"))
    """Messages of 1 kB before a slow handler."""
    most_growth = 50_000_000
    """Bytes by which its process may grow: those that wait are twice as many, at least."""
    per_entity = int(os.environ.get("FTGO_BROKER_PER_ENTITY", "60"))
    """Numbered messages about each of forty things, while members come and go. 2500: a hundred thousand."""
    handover_seconds = 1.0
    patience = 30.0

    pause_seconds = 14.0
    """Of a member's process: longer than its lease, and than the time after which a broker gives it up."""

    @pytest.fixture
    async def database(self, postgres: ServiceDatabases) -> str:
        """A database for small services: of the fixture ``postgres``, where no subclass says otherwise."""
        return (await postgres.create_service_databases(["suite"]))["suite"]

    @pytest.fixture
    async def wire(self, subject: Subject) -> AsyncIterator[Wire]:
        wire = Wire(subject, self.patience)
        yield wire
        await wire.close()
