"""HTTP, consumers and relay in one process: python -m ftgo_kitchen.entrypoints.service"""

from ftgo_service_kit.settings import read_settings

from ftgo_kitchen.bootstrap import build
from ftgo_kitchen.settings import KitchenSettings


def main() -> None:
    build(read_settings(KitchenSettings)).run()


if __name__ == "__main__":
    main()
