"""Publish/asynchronous replies: an event, and the answers to it until there are enough."""
