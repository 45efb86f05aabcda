"""The settings of the accounting service: FTGO_ACCOUNTING_PORT, FTGO_ACCOUNTING_DATABASE_URL, ..."""

from ftgo_service_kit.settings import ServiceSettings
from pydantic import Field
from pydantic_settings import SettingsConfigDict


class AccountingSettings(ServiceSettings):
    model_config = SettingsConfigDict(env_prefix="FTGO_ACCOUNTING_", extra="ignore")

    port: int = Field(default=8085, ge=1, le=65535)
