"""The consumers of messages, the reconciler and other loops: python -m ftgo_kitchen.entrypoints.worker"""

from ftgo_service_kit.service import Part
from ftgo_service_kit.settings import read_settings

from ftgo_kitchen.bootstrap import build
from ftgo_kitchen.settings import KitchenSettings


def main() -> None:
    build(read_settings(KitchenSettings)).run(Part.WORKER)


if __name__ == "__main__":
    main()
