"""Where the order service touches PostgreSQL."""
