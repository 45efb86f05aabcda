"""Bring the database to the newest version: python -m ftgo_consumer.entrypoints.migrate"""

from ftgo_service_kit.migrations import run_migrations
from ftgo_service_kit.settings import read_settings

from ftgo_consumer.settings import ConsumerSettings


def main() -> None:
    run_migrations("ftgo_consumer", read_settings(ConsumerSettings).database_url)


if __name__ == "__main__":
    main()
