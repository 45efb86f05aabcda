"""One transaction for many steps: aggregates, rows, the unit of work, group commit."""
