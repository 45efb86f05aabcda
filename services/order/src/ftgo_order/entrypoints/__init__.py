"""The processes of the order service."""
