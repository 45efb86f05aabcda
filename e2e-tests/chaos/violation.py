"""What an invariant finds: a sentence and the records that show it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from evidence import Evidence


@dataclass(frozen=True)
class Violation:
    """``records`` are few: exactly what one has to look at to see that the sentence is true."""

    invariant: str
    sentence: str
    records: list[dict[str, Any]]


Check = Callable[[Evidence], Iterator[Violation]]
