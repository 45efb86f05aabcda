"""Servers for all tests: a PostgreSQL and a Kafka of this run's own, on free ports, gone afterwards."""

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import structlog
from ftgo_local.environment import settle
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings

if TYPE_CHECKING:
    # Their packages are not in the image of the end-to-end tests.
    from ftgo_local.kafka import Kafka
    from ftgo_local.platform import Platform
    from ftgo_local.postgres import Postgres

ELSEWHERE = "elsewhere"
URLS = [f"FTGO_{service}_URL" for service in ("CONSUMER", "ORDER", "KITCHEN", "ACCOUNTING")]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--platform",
        choices=["embedded", "containers", ELSEWHERE],
        default="embedded",
        help="where PostgreSQL and Kafka come from: this machine's .venv, or Docker (by testcontainers); elsewhere: "
        "nothing is started, the end-to-end tests go to the deployment that FTGO_<SERVICE>_URL name",
    )


def pytest_configure(config: pytest.Config) -> None:
    settle(os.environ)  # tests are clients of our own servers only
    # structlog's default shows the local variables of every frame: seconds of formatting, and the event loop stands.
    plain = structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback)
    structlog.configure(processors=[structlog.processors.add_log_level, plain])
    # In the background of a shell Ctrl-C is ignored, and what we start inherits that: tests that press it would fail.
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # An example that takes long is no fault: a busy machine leaves a process waiting for longer than 0.2 s at times.
    hypothesis_settings.register_profile("ftgo", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    hypothesis_settings.load_profile("ftgo")
    missing = [name for name in URLS if name not in os.environ]
    if config.getoption("--platform") == ELSEWHERE and missing:
        raise pytest.UsageError(
            f"--platform={ELSEWHERE} tests the deployment that the environment names: set {missing}"
        )
    config.addinivalue_line("markers", "slow: run by `make test-slow`, not by `make test`")
    config.addinivalue_line("markers", "brokers: slow, and run by `make test-brokers` alone")
    config.addinivalue_line("markers", "embedded(reason): needs the embedded platform, and says why")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--platform") == "embedded":
        return
    for item in items:
        if mark := item.get_closest_marker("embedded"):
            item.add_marker(pytest.mark.skip(reason=f"only on the embedded platform: {mark.args[0]}"))


@pytest.fixture(scope="session")
def platform(pytestconfig: pytest.Config) -> "Iterator[Platform]":
    """Below a folder of its own, which the servers' user can enter (pytest's are closed to it, when root tests)."""
    if pytestconfig.getoption("--platform") == ELSEWHERE:
        pytest.skip("needs a PostgreSQL and a Kafka of its own")
    path = Path(tempfile.mkdtemp(prefix="ftgo-test-"))
    platform = platform_in(path, pytestconfig.getoption("--platform"))
    yield platform
    platform.stop()
    shutil.rmtree(path, ignore_errors=True)


def platform_in(path: Path, kind: str) -> "Platform":
    if kind == "containers":
        from ftgo_local.containers import ContainerPlatform

        return ContainerPlatform(path)
    from ftgo_local.platform import Platform

    return Platform(path)


@pytest.fixture(scope="session")
async def postgres(platform: "Platform") -> "Postgres":
    await platform.start_postgres()
    return platform.postgres


@pytest.fixture(scope="session")
async def kafka(platform: "Platform") -> "Kafka":
    await platform.start_kafka()
    return platform.kafka
