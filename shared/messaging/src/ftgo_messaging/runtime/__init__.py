"""What everything stands on: errors, loops that survive outages, the database connection, failpoints."""
