"""The applications of all services, without a database: for what is decided before it is asked."""

import importlib

from fastapi import FastAPI
from ftgo_service_kit.service import Service

SERVICES = ["order", "consumer", "kitchen", "accounting"]


def _built(service: str) -> Service:
    settings = getattr(importlib.import_module(f"ftgo_{service}.settings"), f"{service.title()}Settings")
    build = importlib.import_module(f"ftgo_{service}.bootstrap").build
    nowhere = settings(database_url="postgresql://nobody@127.0.0.1:1/nothing", FTGO_KAFKA_BOOTSTRAP="127.0.0.1:1")
    built = build(nowhere)
    assert isinstance(built, Service)
    return built


BUILT = {service: _built(service) for service in SERVICES}
APPS: dict[str, FastAPI] = {name: service.app for name, service in BUILT.items() if service.app is not None}
