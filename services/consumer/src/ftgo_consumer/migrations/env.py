"""Alembic runs this file."""

from ftgo_consumer.adapters.tables import METADATA
from ftgo_service_kit.migrations import run_env

run_env(METADATA)
