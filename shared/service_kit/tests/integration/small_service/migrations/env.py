"""Alembic runs this file."""

from ftgo_service_kit.migrations import run_env
from small_service.tables import METADATA

run_env(METADATA)
