"""The service that a test belongs to, on a real PostgreSQL and without Kafka: its HTTP side, in this process."""

import asyncio
import importlib
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from ftgo_local.postgres import Postgres
from ftgo_service_kit.migrations import run_migrations
from ftgo_service_kit.service import Service


@pytest.fixture(scope="module")
def service_name(request: pytest.FixtureRequest) -> str:
    """``services/NAME/tests/...``"""
    return request.path.relative_to(Path(__file__).parent).parts[0]


@pytest.fixture(scope="module")
async def service(service_name: str, postgres: Postgres) -> AsyncIterator[Service]:
    dsn = (await postgres.create_service_databases([service_name]))[service_name]
    await asyncio.to_thread(run_migrations, f"ftgo_{service_name}", dsn)
    settings = getattr(importlib.import_module(f"ftgo_{service_name}.settings"), f"{service_name.title()}Settings")
    build = importlib.import_module(f"ftgo_{service_name}.bootstrap").build
    service: Service = build(settings(database_url=dsn, FTGO_KAFKA_BOOTSTRAP="127.0.0.1:1"))
    service.group_commit.start()
    yield service
    await service.group_commit.stop()
    await service.engine.dispose()


@pytest.fixture
async def http(service: Service) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app=service.app)
    async with httpx.AsyncClient(transport=transport, base_url="http://service", timeout=30) as client:
        yield client
