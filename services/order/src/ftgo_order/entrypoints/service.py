"""HTTP, consumers and relay in one process: python -m ftgo_order.entrypoints.service"""

from ftgo_service_kit.settings import read_settings

from ftgo_order.bootstrap import build
from ftgo_order.settings import OrderSettings


def main() -> None:
    build(read_settings(OrderSettings)).run()


if __name__ == "__main__":
    main()
