"""The settings of the consumer service: FTGO_CONSUMER_PORT, FTGO_CONSUMER_DATABASE_URL, ..."""

from ftgo_service_kit.settings import ServiceSettings
from pydantic import Field
from pydantic_settings import SettingsConfigDict


class ConsumerSettings(ServiceSettings):
    model_config = SettingsConfigDict(env_prefix="FTGO_CONSUMER_", extra="ignore")

    port: int = Field(default=8081, ge=1, le=65535)
