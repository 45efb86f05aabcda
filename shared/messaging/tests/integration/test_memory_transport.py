"""The memory transport passes the conformance suite."""

import pytest
from ftgo_messaging.messages.ids import new_id
from ftgo_messaging.testing.transport_suite import TransportSuite
from ftgo_messaging.transports import memory


class InMemory:
    """Nothing can be killed but this process."""

    traits = memory.TRAITS
    url = None
    kill = start = stop = None

    def __init__(self) -> None:
        self._url = f"memory://{new_id()}"

    def transport(self) -> memory.MemoryTransport:
        return memory.transport(self._url)


class TestMemory(TransportSuite):
    @pytest.fixture
    def subject(self) -> InMemory:
        return InMemory()
