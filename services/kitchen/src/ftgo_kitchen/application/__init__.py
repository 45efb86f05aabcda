"""The use cases of the kitchen service."""
