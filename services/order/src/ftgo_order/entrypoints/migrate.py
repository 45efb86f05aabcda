"""Bring the database to the newest version: python -m ftgo_order.entrypoints.migrate"""

from ftgo_service_kit.migrations import migrate
from ftgo_service_kit.settings import read_settings

from ftgo_order.settings import OrderSettings


def main() -> None:
    migrate("ftgo_order", read_settings(OrderSettings))


if __name__ == "__main__":
    main()
