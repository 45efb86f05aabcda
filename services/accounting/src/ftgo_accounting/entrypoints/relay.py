"""The relay alone: outbox to the broker: python -m ftgo_accounting.entrypoints.relay"""

from ftgo_service_kit.service import Part
from ftgo_service_kit.settings import read_settings

from ftgo_accounting.bootstrap import build
from ftgo_accounting.settings import AccountingSettings


def main() -> None:
    build(read_settings(AccountingSettings)).run(Part.RELAY)


if __name__ == "__main__":
    main()
