"""The relay alone: outbox to the broker: python -m ftgo_order.entrypoints.relay"""

from ftgo_service_kit.service import Part
from ftgo_service_kit.settings import read_settings

from ftgo_order.bootstrap import build
from ftgo_order.settings import OrderSettings


def main() -> None:
    build(read_settings(OrderSettings)).run(Part.RELAY)


if __name__ == "__main__":
    main()
