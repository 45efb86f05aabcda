"""HTTP, consumers and relay in one process: python -m ftgo_accounting.entrypoints.service"""

from ftgo_service_kit.settings import read_settings

from ftgo_accounting.bootstrap import build
from ftgo_accounting.settings import AccountingSettings


def main() -> None:
    build(read_settings(AccountingSettings)).run()


if __name__ == "__main__":
    main()
