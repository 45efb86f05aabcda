"""The relay alone: outbox to the broker: python -m ftgo_consumer.entrypoints.relay"""

from ftgo_service_kit.service import Part
from ftgo_service_kit.settings import read_settings

from ftgo_consumer.bootstrap import build
from ftgo_consumer.settings import ConsumerSettings


def main() -> None:
    build(read_settings(ConsumerSettings)).run(Part.RELAY)


if __name__ == "__main__":
    main()
