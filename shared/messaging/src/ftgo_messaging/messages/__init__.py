"""What travels: messages, their types, channels and names on the wire. Knows no database and no broker."""
