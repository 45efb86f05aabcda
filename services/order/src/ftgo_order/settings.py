"""The settings of the order service: FTGO_ORDER_PORT, FTGO_ORDER_DATABASE_URL, ..."""

from ftgo_service_kit.settings import ServiceSettings
from pydantic import Field
from pydantic_settings import SettingsConfigDict


class OrderSettings(ServiceSettings):
    model_config = SettingsConfigDict(env_prefix="FTGO_ORDER_", extra="ignore")

    port: int = Field(default=8082, ge=1, le=65535)
    # For how long a client may repeat a request with its Idempotency-Key.
    idempotency_keys_days: float = Field(default=7, gt=0)
    # Clients that wait for an order: GETs with Prefer: wait, and event streams. More are answered by a 503.
    waiting_limit: int = Field(default=1000, ge=1)
