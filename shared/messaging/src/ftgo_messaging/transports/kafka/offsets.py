"""Tells Kafka how far a consumer has come: a little later, for many batches at once.

An offset is only a hint: what was handled twice would be absorbed by the recorded ids. So nobody waits for it, and at
low load, where every batch is one message, it need not cost a request to the broker for each of them.
"""

import asyncio
from collections.abc import Mapping
from typing import Any

import structlog
from aiokafka import TopicPartition
from aiokafka.errors import CommitFailedError, IllegalStateError, KafkaError

from ftgo_messaging.runtime.failpoints import failpoint

log = structlog.get_logger("ftgo.kafka")

_AGAIN_SECONDS = 1.0


class Offsets:
    """Offsets that the database has committed and Kafka does not know yet.

    They are sent after ``every`` seconds at the latest, and by ``commit`` at once: before partitions are given up, and
    before the end. A crash in between repeats that much of the past."""

    def __init__(self, consumer: str, every: float = 0.2) -> None:
        self._name = consumer
        self._every = every
        self._pending: dict[TopicPartition, int] = {}
        self._later: asyncio.Task[None] | None = None

    def handled(self, offsets: Mapping[TopicPartition, int], client: Any) -> None:
        """Remember where to go on, for each partition of a batch that is committed in the database."""
        self._pending.update(offsets)
        if self._later is None or self._later.done():
            self._later = asyncio.create_task(self._commit_later(client), name=f"offsets-{self._name}")

    async def _commit_later(self, client: Any) -> None:
        pause = self._every
        while self._pending:
            await asyncio.sleep(pause)
            await self.commit(client)
            pause = _AGAIN_SECONDS

    async def commit(self, client: Any) -> None:
        """Send what is pending. Never raises but when cancelled: what is not committed comes again, and is absorbed."""
        pending, self._pending = self._pending, {}
        if not pending:
            return
        try:
            failpoint("subscription.before_acknowledge")
            await client.commit(pending)
            failpoint("subscription.acknowledged")
        except (CommitFailedError, IllegalStateError) as error:
            # The partitions went to another member, which begins where they were committed last.
            log.info("consumer.offsets_not_committed", consumer=self._name, error=str(error))
        except Exception as error:
            # The broker is away: later again, or a newer offset of the partition by then.
            self._pending = pending | self._pending
            level = log.info if isinstance(error, KafkaError | OSError) else log.error
            level("consumer.offsets_not_committed", consumer=self._name, error=repr(error))

    def forget(self) -> None:
        """The partitions are somebody else's: their offsets must not be committed from here any more."""
        self._pending.clear()
