"""Whether a consumer gets on: batches handled, or nothing left to handle."""

import time
from collections.abc import Callable, Mapping

from prometheus_client import Gauge

BACKLOG = Gauge("ftgo_consumer_lag", "Messages that wait in a lane", ["consumer", "channel", "lane", "broker"])
AGE = Gauge(
    "ftgo_consumer_progress_age_seconds", "Time since a batch was handled or all was read", ["consumer", "broker"]
)


class Progress:
    """Progress is a batch handled, or nothing left to handle. ``patience`` seconds without any are too many, unless
    the reason is known (``waiting``): the database is away, or the broker. Restarting would not bring them back."""

    def __init__(
        self, consumer: str, patience: float, clock: Callable[[], float] = time.monotonic, broker: str = ""
    ) -> None:
        self.patience = patience
        self._consumer = consumer
        self._broker = broker
        self._clock = clock
        self._at = clock()
        self._lanes: set[str] = set()
        self.waiting = False
        self.steps = 0

    def begin(self) -> None:
        """The patience counts from now on."""
        self._at = self._clock()

    def made(self) -> None:
        """There was progress."""
        self.steps += 1
        self._at = self._clock()

    def observe(self, backlog: Mapping[str, int | None] | None) -> None:
        """How many records wait in each lane that this member reads; None where that is not known."""
        lanes = backlog or {}
        for gone in self._lanes - lanes.keys():
            BACKLOG.remove(self._consumer, *_names(gone), self._broker)
        self._lanes &= lanes.keys()
        for lane, waiting in lanes.items():
            if waiting is not None:
                self._lanes.add(lane)
                BACKLOG.labels(self._consumer, *_names(lane), self._broker).set(waiting)
        if backlog is not None and not backlog:
            self.begin()  # others have all the lanes
        elif lanes and not any(waiting or waiting is None for waiting in lanes.values()):
            self.made()
        AGE.labels(self._consumer, self._broker).set(self.age)

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


def _names(lane: str) -> tuple[str, str]:
    channel, _, number = lane.rpartition("/")
    return channel, number
