"""The applications of all services, without a database: for what is decided before it is asked."""

import importlib

from fastapi import FastAPI

SERVICES = ["order", "consumer", "kitchen", "accounting"]


def _app(service: str) -> FastAPI:
    settings = getattr(importlib.import_module(f"ftgo_{service}.settings"), f"{service.title()}Settings")
    build = importlib.import_module(f"ftgo_{service}.bootstrap").build
    nowhere = settings(database_url="postgresql://nobody@127.0.0.1:1/nothing", FTGO_KAFKA_BOOTSTRAP="127.0.0.1:1")
    app = build(nowhere).app
    assert isinstance(app, FastAPI)
    return app


APPS = {service: _app(service) for service in SERVICES}
