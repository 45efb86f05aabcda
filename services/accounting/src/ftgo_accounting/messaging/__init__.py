"""What the accounting service listens to."""
