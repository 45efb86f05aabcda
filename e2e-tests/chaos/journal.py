"""Append-only files of JSON lines: what a run leaves behind, and all that the checker reads."""

import json
import time
from pathlib import Path
from types import TracebackType
from typing import Any


class Journal:
    """One file of a run. Each line gets the wall clock and the monotonic clock, both in seconds, unless it has them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("a")

    def write(self, **line: Any) -> None:
        stamped = {"wall": time.time(), "mono": time.monotonic(), **line}
        self._file.write(json.dumps(stamped, separators=(",", ":")) + "\n")
        # One write per line: what a crash of the harness leaves can still be checked.
        self._file.flush()

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> "Journal":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
