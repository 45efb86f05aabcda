"""Numbers as they stand in Kafka's records: in zigzag form, seven bits in each byte."""


def varint(data: bytes, at: int) -> tuple[int, int]:
    """The number, and where the next field begins. Raises IndexError at the end of the data."""
    shift = number = 0
    while True:
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return (number >> 1) ^ -(number & 1), at
        shift += 7
