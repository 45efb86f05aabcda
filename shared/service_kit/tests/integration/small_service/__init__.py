"""The smallest service: one route that publishes one event, one consumer that reads it."""
