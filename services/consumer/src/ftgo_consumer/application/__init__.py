"""The use cases of the consumer service."""
