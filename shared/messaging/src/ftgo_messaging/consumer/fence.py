"""What lets a member record effects of a batch, and stops one whose lanes another has taken meanwhile."""

from collections.abc import Awaitable, Callable

from ftgo_messaging.runtime.connection import Connection

Fence = Callable[[Connection], Awaitable[None]]
"""The first statement of a transaction that records effects. Raises TransientError: then nothing may be recorded."""
