"""Where the kitchen service touches PostgreSQL."""
