"""What the Accounting service offers to others."""
