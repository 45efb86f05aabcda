"""The conformance suite: what a transport promises, it has to show here. A new adapter subclasses ``TransportSuite``.

    class TestValkey(TransportSuite):
        @pytest.fixture(scope="class")
        async def subject(self) -> AsyncIterator[Subject]: ...

Each test asks for the traits that it needs; where a broker does not promise one, the test is skipped and says so. Sizes
and times are attributes of the class. Figures go to the file that FTGO_BROKER_RESULTS names.
"""

import os
from collections.abc import AsyncIterator

import pytest

from ftgo_messaging.testing.suite.faults import Faults
from ftgo_messaging.testing.suite.fidelity import Fidelity
from ftgo_messaging.testing.suite.hands import Hands
from ftgo_messaging.testing.suite.kinds import KindsOfChannel
from ftgo_messaging.testing.suite.members import OnServer, Subject, Wire
from ftgo_messaging.testing.suite.order import Order

__all__ = ["OnServer", "Subject", "TransportSuite"]


class TransportSuite(KindsOfChannel, Fidelity, Order, Hands, Faults):
    """All tests. ``subject`` is a fixture of the subclass (``OnServer`` makes one of a server of ``ftgo_local``)."""

    away_seconds = float(os.environ.get("FTGO_BROKER_AWAY", "5"))
    waiting = int(os.environ.get("FTGO_BROKER_WAITING", "100000"))
    """Messages of 1 kB before a slow handler."""
    most_growth = 50_000_000
    """Bytes by which its process may grow: those that wait are twice as many, at least."""
    per_entity = 60
    """Numbered messages about each of forty things, while members come and go."""
    handover_seconds = 1.0
    patience = 30.0

    @pytest.fixture
    async def wire(self, subject: Subject) -> AsyncIterator[Wire]:
        wire = Wire(subject, self.patience)
        yield wire
        await wire.close()
