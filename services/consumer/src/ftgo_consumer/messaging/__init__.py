"""What the consumer service listens to."""
