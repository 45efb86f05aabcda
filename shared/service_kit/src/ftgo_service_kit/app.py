"""The FastAPI application that every service starts from: problems, health, metrics."""

from typing import Any

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline

from ftgo_service_kit import health
from ftgo_service_kit.header_fields import OneOfEach
from ftgo_service_kit.json_body import JsonRoute
from ftgo_service_kit.problems import add_problem_handlers, responses
from ftgo_service_kit.same_site import RefuseOtherSites
from ftgo_service_kit.schemas import Problem

_OPERATION = frozenset(route.path for route in health.router.routes)  # type: ignore[attr-defined]


def create_app(title: str, description: str) -> FastAPI:
    """Add the service's routers to it and hand it to ``Service.attach``."""
    # The pages of /docs come with the package: they work without a network, and tell no third party who reads them.
    app = FastAPIOffline(title=title, description=description, version="0.1.0", redoc_url=None)
    app.router.route_class = JsonRoute
    app.add_middleware(OneOfEach)
    app.add_middleware(RefuseOtherSites)
    add_problem_handlers(app)
    _declare_problem(app)
    app.include_router(health.router)
    return app


def create_health_app(title: str) -> FastAPI:
    """For a process without REST routes: liveness, readiness and metrics only."""
    app = FastAPI(title=title, docs_url=None, redoc_url=None, openapi_url=None)
    add_problem_handlers(app)
    app.include_router(health.router)
    return app


def _declare_problem(app: FastAPI) -> None:
    """Every operation may be answered by 400, 413, 422 and 503, a write by 403, and one with a body by 415. FastAPI's
    own 422 schema is not what we send."""
    app.router.responses = responses(400, 413, 422, 503)
    original = app.openapi

    def openapi() -> dict[str, Any]:
        schema = original()
        components = schema.setdefault("components", {}).setdefault("schemas", {})
        components.setdefault("Problem", Problem.model_json_schema())
        components.pop("HTTPValidationError", None)
        components.pop("ValidationError", None)
        for operations in schema["paths"].values():
            for method, operation in operations.items():
                more = (403,) * (method != "get") + (415,) * ("requestBody" in operation)
                operation["responses"] |= {str(status): answer for status, answer in responses(*more).items()}
        # A reader of /docs comes for the business; the operator knows where to look.
        schema["paths"] = dict(sorted(schema["paths"].items(), key=lambda path: path[0] in _OPERATION))
        return schema

    app.openapi = openapi  # type: ignore[method-assign]
