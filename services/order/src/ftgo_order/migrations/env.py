"""Alembic runs this file."""

from ftgo_order.adapters.tables import METADATA
from ftgo_service_kit.migrations import run_env

run_env(METADATA)
