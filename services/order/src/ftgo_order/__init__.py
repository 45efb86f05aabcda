"""The Order service of FTGO."""
