"""The use cases of the accounting service."""
