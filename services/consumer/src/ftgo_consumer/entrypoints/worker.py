"""The consumers of messages, the reconciler and other loops: python -m ftgo_consumer.entrypoints.worker"""

from ftgo_service_kit.service import Part
from ftgo_service_kit.settings import read_settings

from ftgo_consumer.bootstrap import build
from ftgo_consumer.settings import ConsumerSettings


def main() -> None:
    build(read_settings(ConsumerSettings)).run(Part.WORKER)


if __name__ == "__main__":
    main()
