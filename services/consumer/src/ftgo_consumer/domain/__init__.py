"""The consumer. No database, no broker, no clock."""
