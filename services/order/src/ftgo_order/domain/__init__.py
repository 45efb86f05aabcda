"""The order: what it is and how it may change. No database, no broker, no clock."""
