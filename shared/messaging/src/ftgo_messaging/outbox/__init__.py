"""The transactional outbox: messages are rows of the business transaction; a relay publishes what was committed."""
