"""Kafka as one way to realise channels: a topic each, lanes are its partitions, consumers are its groups.

Built on FastStream's broker (its settings, its lifecycle) and, for what that does not offer, aiokafka's client beneath
it (docs/adr/0002). The headers follow CloudEvents' Kafka binding in binary mode: names of attributes begin with
``ce_``."""

from ftgo_messaging.transports.kafka.transport import KafkaTransport, transport

__all__ = ["KafkaTransport", "transport"]
