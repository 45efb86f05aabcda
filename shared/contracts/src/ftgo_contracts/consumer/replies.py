"""Replies of the Consumer service."""

from ftgo_messaging import Failure, Reply, reply_type


@reply_type("ftgo.consumer.reply.ConsumerVerified")
class ConsumerVerified(Reply, frozen=True, kw_only=True, rename="camel"):
    """The consumer may have this order."""


@reply_type("ftgo.consumer.reply.ConsumerVerificationFailed")
class ConsumerVerificationFailed(Failure, frozen=True, kw_only=True, rename="camel"):
    """reason: UNKNOWN, BLOCKED or LIMIT_EXCEEDED."""
