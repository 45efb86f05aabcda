"""The processes of the accounting service."""
