"""The REST API of the kitchen service."""
