"""What the Kitchen service offers to others."""
