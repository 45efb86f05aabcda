"""Bring the database to the newest version: python -m ftgo_consumer.entrypoints.migrate"""

from ftgo_service_kit.migrations import migrate
from ftgo_service_kit.settings import read_settings

from ftgo_consumer.settings import ConsumerSettings


def main() -> None:
    migrate("ftgo_consumer", read_settings(ConsumerSettings))


if __name__ == "__main__":
    main()
