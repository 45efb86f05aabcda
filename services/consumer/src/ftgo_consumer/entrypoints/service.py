"""HTTP, consumers and relay in one process: python -m ftgo_consumer.entrypoints.service"""

from ftgo_service_kit.settings import read_settings

from ftgo_consumer.bootstrap import build
from ftgo_consumer.settings import ConsumerSettings


def main() -> None:
    build(read_settings(ConsumerSettings)).run()


if __name__ == "__main__":
    main()
