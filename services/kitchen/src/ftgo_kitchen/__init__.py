"""The Kitchen service of FTGO."""
