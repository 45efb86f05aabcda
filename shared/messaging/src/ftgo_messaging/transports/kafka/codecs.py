"""Decompression with a bound.

A batch is compressed by whoever sends it, and the broker's limit counts the compressed bytes: 100 kB hold 3 GB of zeros
(zstd packs 32,000 to one). aiokafka would unpack that, and the process would be killed for it, again and again.
"""

import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib import import_module
from mmap import mmap

import cramjam

from ftgo_messaging.transports.kafka.varint import varint

MOST_BYTES = 2 * 1024 * 1024
"""Of a batch, unpacked. No producer goes beyond it as it comes. All of them bound a record before compression, to 1 MB
(Java: ``max.request.size``). Most bound a batch before compression too, to 16 kB or 1 MB; Java's bounds it by what it
expects of the compression, so that with its ``batch.size`` (16 kB) records would have to shrink to less than 1/128.

Producers that are set to larger batches: each batch beyond it is one dead letter, ``TooMuch``, whose body is the packed
batch. Lower their ``batch.size``; or raise this, and the memory of a service's container with it."""

_MOST_HEADERS = 50_000
"""Of a record in a packed batch. A header may have two bytes in the batch, and takes a hundred in memory."""

_XERIAL = b"\x82SNAPPY\x00"
_XERIAL_HEADER_BYTES = 16


class TooMuch(ValueError):
    """A batch holds more than ``MOST_BYTES`` when it is unpacked, or a record with more than ``_MOST_HEADERS``."""

    def __init__(self, what: str = f"more than {MOST_BYTES} bytes when unpacked") -> None:
        super().__init__(what)


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


def _with_few_headers(unpack: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    def decode(payload: bytes) -> bytes:
        unpacked = unpack(payload)
        if len(unpacked) > 2 * _MOST_HEADERS:
            # What does not have the form of records ends with an IndexError here, and is told by the client.
            with suppress(IndexError):
                _check_headers(unpacked)
        return unpacked

    return decode


def _check_headers(records: bytes) -> None:
    at = 0
    while at < len(records):
        length, at = varint(records, at)
        if length <= 0:
            return  # no record of this format
        if length > 2 * _MOST_HEADERS and (count := _headers_of(records, at)) > _MOST_HEADERS:
            raise TooMuch(f"{count} headers in a record")
        at += length


def _headers_of(records: bytes, at: int) -> int:
    """How many the record that begins here says to have."""
    _, at = varint(records, at + 1)  # behind the attributes, the time
    _, at = varint(records, at)  # the offset
    for _ in ("key", "value"):
        length, at = varint(records, at)
        at += max(0, length)
    return varint(records, at)[0]


DECODERS = {
    codec: _with_few_headers(unpack)
    for codec, unpack in {"gzip": _gzip, "snappy": _snappy, "lz4": _lz4, "zstd": _zstd}.items()
}


def bound_decompression() -> None:
    """From now on aiokafka unpacks with these. It has no setting for it: its modules, compiled or not, look the
    functions up by their names."""
    for module in ("default_records", "legacy_records", "_crecords.default_records", "_crecords.legacy_records"):
        names = vars(import_module(f"aiokafka.record.{module}"))
        for codec, decode in DECODERS.items():
            if f"{codec}_decode" in names:
                names[f"{codec}_decode"] = decode
