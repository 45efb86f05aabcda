"""The service that a test belongs to, on a real PostgreSQL and without Kafka: its HTTP side, in this process."""

import asyncio
import importlib
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from ftgo_local.postgres import Postgres
from ftgo_service_kit.migrations import migrate
from ftgo_service_kit.service import Service


@pytest.fixture(scope="module")
async def service(request: pytest.FixtureRequest, postgres: Postgres) -> AsyncIterator[Service]:
    name = request.path.relative_to(Path(__file__).parent).parts[0]  # services/NAME/tests/...
    await postgres.create_services([name])
    settings = getattr(importlib.import_module(f"ftgo_{name}.settings"), f"{name.title()}Settings")(
        database_url=postgres.service_dsn(name),
        migration_database_url=postgres.owner_dsn(name),
        FTGO_KAFKA_BOOTSTRAP="127.0.0.1:1",
    )
    await asyncio.to_thread(migrate, f"ftgo_{name}", settings)
    service: Service = importlib.import_module(f"ftgo_{name}.bootstrap").build(settings)
    service.group_commit.start()
    yield service
    await service.group_commit.stop()
    await service.pools.close()


@pytest.fixture
async def http(service: Service) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app=service.app)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost", timeout=30) as client:
        yield client
