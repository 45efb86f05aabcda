"""Bodies to bytes and back. JSON with msgspec: decoding checks the types of all fields.

A value type of one's own (Money, say) takes part by two methods: ``to_wire() -> str`` and the class method
``from_wire(text)``, which raises ValueError for a text that is no such value.
"""

from typing import Any

import msgspec

from ftgo_messaging.runtime.errors import Undecodable

JSON = "application/json"


def _encode_value(value: Any) -> Any:
    try:
        return value.to_wire()
    except AttributeError:
        raise NotImplementedError(f"{type(value).__qualname__} has no to_wire()") from None


def _decode_value(cls: type, text: Any) -> Any:
    try:
        return cls.from_wire(text)  # type: ignore[attr-defined]
    except AttributeError:
        raise NotImplementedError(f"{cls.__qualname__} has no from_wire()") from None


_encoder = msgspec.json.Encoder(enc_hook=_encode_value)


_decoders: dict[type, msgspec.json.Decoder[Any]] = {}


def _decoder(cls: type) -> msgspec.json.Decoder[Any]:
    if cls not in _decoders:
        _decoders[cls] = msgspec.json.Decoder(cls, dec_hook=_decode_value)
    return _decoders[cls]


def encode(body: Any) -> bytes:
    """The body as JSON bytes, fields in camelCase."""
    return _encoder.encode(body)


def decode(data: bytes | str, cls: type[Any]) -> Any:
    """An instance of ``cls``. Unknown fields are ignored, missing or ill-typed ones raise Undecodable."""
    try:
        return _decoder(cls).decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise Undecodable(f"not a {cls.__qualname__}: {error}") from error
