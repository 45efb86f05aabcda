"""What the order service listens to, besides the replies to its sagas."""
