"""Replies: the answer to a command, matched to it by the command's id. A ``Failure`` is an answer too, not an error."""

import msgspec

from ftgo_messaging.messages.registry import reply_type


class Reply(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Base of all replies. A plain subclass means that the command was carried out."""


@reply_type("ftgo.messaging.Success")
class Success(Reply, frozen=True, kw_only=True, rename="camel"):
    """Done, and there is nothing more to say."""


@reply_type("ftgo.messaging.Failure")
class Failure(Reply, frozen=True, kw_only=True, rename="camel"):
    """The participant refused; it changed nothing. ``reason`` is a stable word of the contract."""

    reason: str = "REFUSED"
