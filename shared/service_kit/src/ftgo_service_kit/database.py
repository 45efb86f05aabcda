"""The engine of a service: SQLAlchemy Core on asyncpg, a pool without overflow, short time-outs."""

from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from ftgo_service_kit.settings import ServiceSettings


def async_url(url: str) -> str:
    """postgresql://... or postgres://... as SQLAlchemy names it for asyncpg."""
    _, separator, rest = url.partition("://")
    return f"postgresql+asyncpg{separator}{rest}"


def make_engine(settings: ServiceSettings, application_name: str) -> AsyncEngine:
    """A request that gets no connection within 5 s fails as transient; nothing waits for ever."""
    return create_async_engine(
        async_url(settings.database_url),
        pool_size=settings.pool_size,
        max_overflow=0,
        pool_timeout=5,
        pool_recycle=1800,
        connect_args={
            "timeout": 5,
            "command_timeout": 30,
            "server_settings": {
                "application_name": application_name,
                "jit": "off",
                "statement_timeout": "20s",
                "lock_timeout": "10s",
                # A paused process must not keep its successor waiting for its locks.
                "idle_in_transaction_session_timeout": "20s",
            },
        },
    )
