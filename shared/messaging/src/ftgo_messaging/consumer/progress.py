"""Whether a consumer gets on, told from what it knows without asking: offsets handled, and the ends of the partitions
as the last fetches reported them."""

import time
from collections.abc import Callable, Mapping

from aiokafka import TopicPartition
from prometheus_client import Gauge

LAG = Gauge("ftgo_consumer_lag", "Messages behind the end of a partition", ["consumer", "channel", "partition"])
AGE = Gauge("ftgo_consumer_progress_age_seconds", "Time since a batch was handled or all was read", ["consumer"])


class Progress:
    """Progress is a batch handled, or nothing left to handle. ``patience`` seconds without any are too many, unless
    the reason is known (``waiting``): the database is away, or the broker. Restarting would not bring them back."""

    def __init__(self, consumer: str, patience: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.patience = patience
        self._consumer = consumer
        self._clock = clock
        self._at = clock()
        self._lags: dict[TopicPartition, int] = {}
        self.waiting = False
        self.steps = 0

    def begin(self) -> None:
        """The patience counts from now on."""
        self._at = self._clock()

    def made(self) -> None:
        """There was progress."""
        self.steps += 1
        self._at = self._clock()

    def observe(self, lags: Mapping[TopicPartition, int], assigned: int, *, silent: bool) -> None:
        """The lags as far as they are known, of so many partitions. ``silent``: no fetch has been answered for longer
        than the patience."""
        for gone in self._lags.keys() - lags.keys():
            LAG.remove(self._consumer, gone.topic, str(gone.partition))
        for partition, lag in lags.items():
            LAG.labels(self._consumer, partition.topic, str(partition.partition)).set(lag)
        self._lags = dict(lags)
        if not assigned:
            self.begin()  # others have all the partitions
        elif not silent and len(lags) == assigned and not any(lags.values()):
            self.made()
        AGE.labels(self._consumer).set(self.age)

    @property
    def age(self) -> float:
        """Seconds since the last progress."""
        return self._clock() - self._at

    @property
    def late(self) -> bool:
        """No progress for longer than the patience, whatever the reason."""
        return self.age > self.patience

    @property
    def stuck(self) -> bool:
        """Late, and for no reason that would pass by itself."""
        return self.late and not self.waiting
