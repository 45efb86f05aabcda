"""The relay alone: outbox to the broker: python -m ftgo_kitchen.entrypoints.relay"""

from ftgo_service_kit.service import Part
from ftgo_service_kit.settings import read_settings

from ftgo_kitchen.bootstrap import build
from ftgo_kitchen.settings import KitchenSettings


def main() -> None:
    build(read_settings(KitchenSettings)).run(Part.RELAY)


if __name__ == "__main__":
    main()
