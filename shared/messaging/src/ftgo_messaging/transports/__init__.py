"""How channels are realised: one port, and a package for each broker."""
