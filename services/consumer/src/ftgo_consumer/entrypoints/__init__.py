"""The processes of the consumer service."""
