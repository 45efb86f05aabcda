"""Where the consumer service touches PostgreSQL."""
