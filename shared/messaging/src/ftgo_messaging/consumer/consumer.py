"""What the process around it sees of a consumer, whatever broker that reads from."""

from typing import Protocol


class Consumer(Protocol):
    """Something that reads messages beside HTTP."""

    @property
    def name(self) -> str: ...

    @property
    def progress_ok(self) -> bool:
        """Whether it is connected and its last work succeeded; part of readiness."""
        ...

    async def start(self) -> None:
        """Returns at once, and keeps trying while the broker is away."""
        ...

    async def stop(self) -> None:
        """Finish what is in flight."""
        ...

    async def watch(self) -> None:
        """Look after it until cancelled. Raises when it cannot go on in this process."""
        ...
