"""The one error of this package: what went wrong, what to do about it, and where to look."""

from pathlib import Path


class PlatformError(Exception):
    """``cause`` and ``cure`` are a sentence each, for a reader who sees nothing else; ``log`` is where to look."""

    def __init__(self, cause: str, cure: str = "", log: Path | None = None) -> None:
        super().__init__(f"{cause} {cure}".strip())
        self.cause = cause
        self.cure = cure
        self.log = log
        self.told = False  # a listener of the progress has shown it already


class AlreadyRunningError(PlatformError):
    """Another ``ftgo up`` owns the state directory."""


class NotRunningError(PlatformError):
    """The command needs a running ``ftgo up``, and there is none."""
