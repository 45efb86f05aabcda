"""A broker that keeps a message for those alone whom it knows is told all of them."""

from collections import defaultdict

from apps import BUILT
from ftgo_contracts.channels import ALL_CHANNELS, READERS
from ftgo_messaging import ChannelConsumer


def test_the_consumers_of_each_channel_are_those_that_read_it() -> None:
    found: dict[str, set[str]] = defaultdict(set)
    for service in BUILT.values():
        for consumer in service.consumers:
            assert isinstance(consumer, ChannelConsumer)
            for channel in consumer.channels:
                found[channel].add(consumer.name)
    assert found == {channel: set(readers) for channel, readers in READERS.items()}
    assert found.keys() <= {channel.name for channel in ALL_CHANNELS}
