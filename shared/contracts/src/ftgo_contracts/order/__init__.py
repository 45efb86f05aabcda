"""What the Order service offers to others."""
