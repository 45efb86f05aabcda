"""The processes of the kitchen service."""
