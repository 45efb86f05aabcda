"""Restaurants and tickets. No database, no broker, no clock."""
