"""The order service on a real PostgreSQL, without Kafka: its HTTP side, in this process."""

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest
from ftgo_local.postgres import Postgres
from ftgo_order.bootstrap import build
from ftgo_order.settings import OrderSettings
from ftgo_service_kit.migrations import run_migrations
from ftgo_service_kit.service import Service


@pytest.fixture(scope="module")
async def service(postgres: Postgres) -> AsyncIterator[Service]:
    dsn = (await postgres.create_service_databases(["order"]))["order"]
    await asyncio.to_thread(run_migrations, "ftgo_order", dsn)
    service = build(OrderSettings(database_url=dsn, FTGO_KAFKA_BOOTSTRAP="127.0.0.1:1"))
    service.group_commit.start()
    yield service
    await service.group_commit.stop()
    await service.engine.dispose()


@pytest.fixture
async def http(service: Service) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app=service.app)
    async with httpx.AsyncClient(transport=transport, base_url="http://order", timeout=30) as client:
        yield client
