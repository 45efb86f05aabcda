"""A module of the library with one change in it."""

from dataclasses import dataclass
from pathlib import Path

LIBRARY = Path("shared/messaging/src/ftgo_messaging")
TESTS = Path("shared/messaging/tests")


@dataclass(frozen=True)
class Mutant:
    """``code`` is the whole module. ``tests`` are those to be asked; none: the ones that ``tests_of`` names."""

    module: Path
    name: str
    code: str
    tests: tuple[str, ...] = ()
