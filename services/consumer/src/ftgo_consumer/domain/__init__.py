"""The account and its entries. No database, no broker, no clock."""
