"""Faults that a person could make, above all in statements of SQL, where no operator of a tool reaches."""

from dataclasses import dataclass
from pathlib import Path

from mutations import Mutant

LIBRARY = "shared/messaging/src/ftgo_messaging"


@dataclass(frozen=True)
class Fault:
    """``old`` stands exactly once in the module, and becomes ``new``."""

    name: str
    module: str
    old: str
    new: str

    def mutant(self, root: Path) -> Mutant:
        """Raises ValueError when the module has changed so that the fault no longer has its place."""
        module = Path(LIBRARY) / self.module
        code = (root / module).read_text()
        if code.count(self.old) != 1:
            raise ValueError(f"{self.name}: {self.old!r} stands {code.count(self.old)} times in {module}")
        return Mutant(module, self.name, code.replace(self.old, self.new))


PLANTED: tuple[Fault, ...] = ()
