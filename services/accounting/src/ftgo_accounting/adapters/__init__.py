"""Where the accounting service touches PostgreSQL."""
