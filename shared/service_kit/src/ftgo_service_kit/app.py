"""The FastAPI application that every service starts from: problems, health, metrics, size limits."""

from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from sqlalchemy import text

from ftgo_service_kit.problems import LimitBody, add_problem_handlers, responses
from ftgo_service_kit.schemas import Problem


def create_app(title: str, description: str) -> FastAPI:
    app = FastAPI(title=title, description=description, version="0.1.0", redoc_url=None, strict_content_type=False)
    app.add_middleware(LimitBody)
    add_problem_handlers(app)
    _declare_problem(app)

    @app.get("/livez", tags=["operation"])
    async def livez() -> dict[str, str]:
        """The process runs. Depends on nothing else: a broker's outage must not restart services."""
        return {"status": "ok"}

    @app.get("/readyz", tags=["operation"], responses={503: {"description": "Not ready"}})
    async def readyz(request: Request) -> JSONResponse:
        """Whether requests can be served and messages are read. REST works without Kafka: it only shows here."""
        service = request.app.state.service
        parts: dict[str, Any] = {"stopping": service.stopping}
        try:
            async with service.engine.connect() as connection:
                await connection.execute(text("SELECT 1"))
            parts["database"] = "ok"
        except Exception as error:
            parts["database"] = type(error).__name__
        parts["consumers"] = {c.name: "ok" if c.progress_ok else "waiting" for c in service.consumers}
        ready = parts["database"] == "ok" and not service.stopping and all(c.progress_ok for c in service.consumers)
        return JSONResponse({"ready": ready, **parts}, 200 if ready else 503)

    @app.get("/metrics", tags=["operation"], response_class=Response)
    async def metrics() -> Response:
        """Prometheus text format."""
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    return app


def _declare_problem(app: FastAPI) -> None:
    """Every operation may be answered by 400, 413, 422 and 503; FastAPI's own 422 schema is not what we send."""
    app.router.responses = responses(400, 413, 422, 503)
    original = app.openapi

    def openapi() -> dict[str, Any]:
        schema = original()
        components = schema.setdefault("components", {}).setdefault("schemas", {})
        components.setdefault("Problem", Problem.model_json_schema())
        components.pop("HTTPValidationError", None)
        components.pop("ValidationError", None)
        return schema

    app.openapi = openapi  # type: ignore[method-assign]
