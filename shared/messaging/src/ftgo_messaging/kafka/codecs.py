"""Decompression with a bound.

A batch is compressed by whoever sends it, and the broker's limit counts the compressed bytes: 100 kB hold 3 GB of zeros
(zstd packs 32,000 to one). aiokafka would unpack that, and the process would be killed for it, again and again.
"""

import struct
import zlib
from collections.abc import Callable, Iterator
from importlib import import_module
from mmap import mmap

import cramjam

MOST_BYTES = 8 * 1024 * 1024
"""Of a batch, unpacked. Producers form batches by their size *before* compression: 16 kB (Java) to 1 MB, unless they
are set to something special."""

_XERIAL = b"\x82SNAPPY\x00"
_XERIAL_HEADER_BYTES = 16


class TooMuch(ValueError):
    """A batch that is unpacked holds more than ``MOST_BYTES``."""

    def __init__(self) -> None:
        super().__init__(f"more than {MOST_BYTES} bytes when unpacked")


def _gzip(payload: bytes) -> bytes:
    unpacked, rest = b"", bytes(payload)
    while rest:  # a stream may have several members
        member = zlib.decompressobj(zlib.MAX_WBITS | 16)
        unpacked += member.decompress(rest, MOST_BYTES + 1 - len(unpacked))
        if len(unpacked) > MOST_BYTES:
            raise TooMuch
        if not member.eof:
            raise EOFError("the compressed data end too early")
        rest = member.unused_data
    return unpacked


def _snappy(payload: bytes) -> bytes:
    blocks = list(_snappy_blocks(bytes(payload)))
    if sum(cramjam.snappy.decompress_raw_len(block) for block in blocks) > MOST_BYTES:
        raise TooMuch
    return b"".join(bytes(cramjam.snappy.decompress_raw(block)) for block in blocks)


def _snappy_blocks(payload: bytes) -> Iterator[bytes]:
    """One, or those of the framing of xerial's library, which Java uses: length and bytes of each."""
    if not payload.startswith(_XERIAL):
        yield payload
        return
    at = _XERIAL_HEADER_BYTES
    while at < len(payload):
        (length,) = struct.unpack_from(">I", payload, at)
        at += 4
        yield payload[at : at + length]
        at += length


def _lz4(payload: bytes) -> bytes:
    return _into(cramjam.lz4.decompress_into, payload)


def _zstd(payload: bytes) -> bytes:
    return _into(cramjam.zstd.decompress_into, payload)


def _into(decompress_into: Callable[[bytes, mmap], int], payload: bytes) -> bytes:
    with mmap(-1, MOST_BYTES) as room:  # pages that nobody writes to cost nothing
        try:
            return room[: decompress_into(payload, room)]
        except cramjam.DecompressionError as error:
            raise (TooMuch() if str(error) == "failed to write whole buffer" else error) from None


DECODERS = {"gzip": _gzip, "snappy": _snappy, "lz4": _lz4, "zstd": _zstd}


def bound_decompression() -> None:
    """From now on aiokafka unpacks with these. It has no setting for it: its modules, compiled or not, look the
    functions up by their names."""
    for module in ("default_records", "legacy_records", "_crecords.default_records", "_crecords.legacy_records"):
        names = vars(import_module(f"aiokafka.record.{module}"))
        for codec, decode in DECODERS.items():
            if f"{codec}_decode" in names:
                names[f"{codec}_decode"] = decode
