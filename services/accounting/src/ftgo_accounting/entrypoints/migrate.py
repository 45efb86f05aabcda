"""Bring the database to the newest version: python -m ftgo_accounting.entrypoints.migrate"""

from ftgo_service_kit.migrations import migrate
from ftgo_service_kit.settings import read_settings

from ftgo_accounting.settings import AccountingSettings


def main() -> None:
    migrate("ftgo_accounting", read_settings(AccountingSettings))


if __name__ == "__main__":
    main()
