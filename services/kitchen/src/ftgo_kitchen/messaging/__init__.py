"""What the kitchen service listens to."""
