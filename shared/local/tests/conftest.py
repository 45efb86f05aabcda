"""Small disks, to be filled."""

import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


class Disk:
    """A folder with a disk of its own, in memory."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._ballast = path / "ballast"

    def fill(self) -> None:
        with self._ballast.open("ab", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(4096))
            except OSError:
                pass  # full

    def make_room(self) -> None:
        self._ballast.unlink()


def mounted(path: Path, megabytes: int) -> Iterator[Disk]:
    """Skips the test where this user may not mount."""
    path.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=0755", "ftgo-test", str(path)]
    if subprocess.run(command, check=False, capture_output=True).returncode != 0:
        pytest.skip("a small disk needs the right to mount")
    try:
        yield Disk(path)
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Disk]:
    yield from mounted(tmp_path / "disk", 1)


@pytest.fixture
def roomy_disk() -> Iterator[Disk]:
    """With room for PostgreSQL and Kafka, where every user can enter."""
    path = Path(tempfile.mkdtemp(prefix="ftgo-test-"))
    yield from mounted(path, 300)
    path.rmdir()
