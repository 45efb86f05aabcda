"""What the Consumer service offers to others."""
