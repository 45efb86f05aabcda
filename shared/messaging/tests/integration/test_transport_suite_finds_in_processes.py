"""Tests of the conformance suite that need processes, a server or a database can fail as well: for every fault that is
planted here, the test that is named beside it does. The others: tests/unit/test_transport_suite_finds.py.

On a real Valkey, with an adapter that has the fault (``planted_valkey.py``), or none as the control.
"""

import importlib
import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from ftgo_local.brokers.valkey import Valkey
from ftgo_local.ports import free_port
from ftgo_local.postgres import Postgres
from ftgo_messaging.testing.suite.members import Wire
from ftgo_messaging.testing.transport_suite import OnServer, TransportSuite

pytestmark = [pytest.mark.slow, pytest.mark.brokers]
HERE = Path(__file__).parent
PLANTED = "planted_valkey"
NO_DISK = "no append-only file"
KILLED, ORDER, CONTROL = (
    "test_a_killed_member",
    "test_order_with_members_killed_and_paused",
    "test_control_of_processes_without_a_key",
)


class Quick(TransportSuite):
    per_entity = 30
    pause_seconds = 1.0
    patience = 8.0


LOST, DISORDER = r"\d+ of 1200", r"assert \(1200, \[\], [1-9]"
FAULTS = [  # and what the test says then
    ("SettlesWhenTaken", KILLED, r"assert \['entity:0'"),
    ("AnotherOriginEachTime", KILLED, r"assert \['suite"),
    ("LosesAtRandom", ORDER, LOST),
    ("RandomLanes", ORDER, DISORDER),
    ("LanesOfAll", ORDER, f"{LOST}|{DISORDER}"),
    ("BeginsWithWhatComes", ORDER, f"{LOST}|has done nothing"),
    ("OneLane", CONTROL, r"^assert 0 > 0"),
    ("LosesAtRandom", CONTROL, LOST),
    (NO_DISK, "test_killed_broker", r"assert \['entity-0:0'"),
]


@pytest.fixture
async def server(request: pytest.FixtureRequest) -> AsyncIterator[Valkey]:
    path = Path(tempfile.mkdtemp(prefix="ftgo-test-"))
    server = Valkey(path / "valkey", free_port())
    if getattr(request, "param", "") == NO_DISK:
        server.extra_settings = ["appendonly no"]
    await server.start()
    yield server
    server.stop()
    shutil.rmtree(path, ignore_errors=True)


async def run(name: str, server: Valkey, postgres: Postgres, fault: str, patch: pytest.MonkeyPatch) -> None:
    patch.setenv("PYTHONPATH", str(HERE))  # of the processes
    patch.syspath_prepend(HERE)
    planted = importlib.import_module(PLANTED)
    patch.setenv(planted.FAULT, fault)
    if fault in planted.LANE_OF:
        patch.setattr("ftgo_messaging.transports.valkey.publisher.lane_of", planted.LANE_OF[fault])
    wire = Wire(OnServer(server, planted.transport), Quick.patience)
    wanted = {"wire": wire, "database": (await postgres.create_service_databases(["suite"]))["suite"]}
    test = getattr(Quick(), name)
    try:
        await test(**{each: wanted[each] for each in test.__annotations__ if each in wanted})
    finally:
        await wire.close()


@pytest.mark.parametrize("name", sorted({name for _, name, _ in FAULTS}))
async def test_it_passes_without_a_fault(
    name: str, server: Valkey, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    await run(name, server, postgres, "", monkeypatch)


@pytest.mark.parametrize(
    ("server", "fault", "name", "says"), [(fault, fault, name, says) for fault, name, says in FAULTS],
    indirect=["server"], ids=[f"{fault}-{name}" for fault, name, _ in FAULTS],
)  # fmt: skip
async def test_the_fault_is_found(
    server: Valkey, fault: str, name: str, says: str, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(AssertionError, match=says):
        await run(name, server, postgres, fault, monkeypatch)
