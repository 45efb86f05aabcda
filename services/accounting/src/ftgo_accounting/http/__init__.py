"""The REST API of the accounting service."""
