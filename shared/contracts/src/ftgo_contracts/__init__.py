"""The published language of FTGO: channels, commands, replies, events, money."""
