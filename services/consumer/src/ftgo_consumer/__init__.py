"""The Consumer service of FTGO."""
