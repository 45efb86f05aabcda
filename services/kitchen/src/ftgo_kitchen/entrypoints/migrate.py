"""Bring the database to the newest version: python -m ftgo_kitchen.entrypoints.migrate"""

from ftgo_service_kit.migrations import migrate
from ftgo_service_kit.settings import read_settings

from ftgo_kitchen.settings import KitchenSettings


def main() -> None:
    migrate("ftgo_kitchen", read_settings(KitchenSettings))


if __name__ == "__main__":
    main()
