"""Kafka as one way to realise channels. The only place that imports faststream or aiokafka."""
