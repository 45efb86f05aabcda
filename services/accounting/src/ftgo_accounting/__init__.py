"""The Accounting service of FTGO."""
