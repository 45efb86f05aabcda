"""Keys whose message could not be published: they wait, the others flow.

A failed message must not be overtaken by a later one of its key, so the whole key waits and is tried again after a
growing time. Its rows are left out of what a relay looks for: five hundred of them at the head of the table would
otherwise hide everything behind them.
"""

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable

from prometheus_client import Gauge

from ftgo_messaging.runtime.loops import backoff

STOPPED = Gauge(
    "ftgo_outbox_stopped_keys", "Keys and whole channels that wait because a message could not be published"
)

MOST_KEYS = 100
"""With more keys of one channel stopped it is the channel that is in trouble (never declared, no right to write):
the channel waits as a whole, and what is left out stays a short list."""

_HELD_SECONDS = 0.1
MOST_HELD = 5000
"""With more keys held, their channels are left out as a whole: a list that PostgreSQL compares each row with."""

Key = tuple[str, str]
"""Channel and key."""


class Stopped:
    """What waits, and until when. In memory only: a new process tries everything once more."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._attempts: Counter[tuple[str, str | None]] = Counter()
        self._until: dict[tuple[str, str | None], float] = {}
        self._held: set[Key] = set()

    def __bool__(self) -> bool:
        return bool(self._until or self._held)

    def __len__(self) -> int:
        return len(self._until)

    def __contains__(self, key: Key) -> bool:
        """Whether something of that key failed and has not been published yet."""
        return key in self._until or (key[0], None) in self._until

    def note(self, failed: Iterable[Key], passed: Iterable[Key]) -> None:
        """Take note of a round. A key that failed waits 0.1 s, then twice as long each time, up to 5 s."""
        for key in {*failed}:
            self._wait(key)
        if self._until:
            for channel, name in {*passed}:
                for entry in ((channel, name), (channel, None)):
                    self._until.pop(entry, None)
                    self._attempts.pop(entry, None)
            self._whole_channels()
        STOPPED.set(len(self._until))

    def _wait(self, key: tuple[str, str | None]) -> None:
        self._attempts[key] += 1
        self._until[key] = self._clock() + backoff(self._attempts[key])

    def _whole_channels(self) -> None:
        keys: dict[str, list[Key]] = defaultdict(list)
        for channel, name in self._until:
            if name is not None:
                keys[channel].append((channel, name))
        for channel, stopped in keys.items():
            if len(stopped) > MOST_KEYS:
                for key in stopped:
                    del self._until[key], self._attempts[key]
                self._wait((channel, None))

    def hold(self, keys: Iterable[Key]) -> None:
        """Leave them out until ``let_go``: nothing has failed, but it is not their turn."""
        self._held.update(keys)

    def let_go(self) -> None:
        """Of all that are held; those whose turn it is not yet are found, and held, again."""
        self._held.clear()

    def waiting(self) -> tuple[list[Key], list[str]]:
        """The keys, and the whole channels, whose time has not come yet."""
        now = self._clock()
        keys = [(c, k) for (c, k), until in self._until.items() if until > now and k is not None]
        channels = [c for (c, k), until in self._until.items() if until > now and k is None]
        held = self._held
        if len(held) > MOST_HELD:
            channels += {channel for channel, _ in held}
            return keys, channels
        return [*keys, *held], channels

    def next_attempt(self) -> float | None:
        """Seconds until the first of them may be tried again. What is held may be let go at any moment."""
        now = self._clock()
        waits = [max(0.0, until - now) for until in self._until.values()] + [_HELD_SECONDS] * bool(self._held)
        return min(waits, default=None)
