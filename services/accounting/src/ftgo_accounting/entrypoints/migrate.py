"""Bring the database to the newest version: python -m ftgo_accounting.entrypoints.migrate"""

from ftgo_service_kit.migrations import run_migrations
from ftgo_service_kit.settings import read_settings

from ftgo_accounting.settings import AccountingSettings


def main() -> None:
    run_migrations("ftgo_accounting", read_settings(AccountingSettings).database_url)


if __name__ == "__main__":
    main()
