"""The REST API of the consumer service."""
