"""Whether a Kafka is there, for jobs that wait for it (``ftgo_messaging.runtime.waiting``)."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from aiokafka.conn import collect_hosts
from aiokafka.errors import InvalidReplicationFactorError, KafkaConnectionError, KafkaError

from ftgo_messaging.runtime.errors import TransientError, is_transient
from ftgo_messaging.transports.port import BrokerRefuses

CURE = "Is it up, and is FTGO_KAFKA_BOOTSTRAP its address?"

REFUSALS = (KafkaError,)
"""Where it does not pass: a broker that means what it says."""


async def reach(bootstrap: str) -> None:
    """Open a connection to one of these addresses. Raises the last error of the network: the client would only tell
    that it could not bootstrap, which has a hundred reasons."""
    failure: Exception = KafkaConnectionError(f"no address in {bootstrap!r}")
    for host, port, _ in collect_hosts(bootstrap):
        try:
            _, writer = await asyncio.open_connection(host, port)
        except OSError as error:
            failure = error
        else:
            writer.close()
            return
    raise failure


@contextmanager
def telling() -> Iterator[None]:
    """Errors of the client as those of the port."""
    try:
        yield
    except (KafkaError, OSError) as error:
        if passes(error):
            raise TransientError(str(error) or type(error).__name__) from error
        raise BrokerRefuses(str(error) or type(error).__name__) from error


def passes(error: Exception) -> bool:
    """Whether a Kafka that has just started may stop to fail so. Too few brokers for the copies of a topic: the others
    may be on their way."""
    if isinstance(error, KafkaError):
        return error.retriable or isinstance(error, InvalidReplicationFactorError)
    return is_transient(error)
