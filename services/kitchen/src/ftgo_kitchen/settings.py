"""The settings of the kitchen service: FTGO_KITCHEN_PORT, FTGO_KITCHEN_DATABASE_URL, ..."""

from ftgo_service_kit.settings import ServiceSettings
from pydantic import Field
from pydantic_settings import SettingsConfigDict


class KitchenSettings(ServiceSettings):
    model_config = SettingsConfigDict(env_prefix="FTGO_KITCHEN_", extra="ignore")

    port: int = Field(default=8083, ge=1, le=65535)
