"""FTGO_BROKER_FILE: where running services find their brokers, and follow when that changes."""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from ftgo_local.errors import PlatformError
from ftgo_local.files import read_json, replace
from ftgo_local.state import StateDirectory
from ftgo_local.unprivileged import hand_over, owned_directory

VARIABLE = "FTGO_BROKER_FILE"


@dataclass(frozen=True)
class Addresses:
    """Relays publish to ``send``; consumers read that and all of ``read``. A file of a higher generation is newer."""

    generation: int  # milliseconds since 1970 of its writing, or one more than the last
    send: str
    read: list[str]


def place(directory: StateDirectory) -> Path:
    """The file, in a folder that the user of the services can enter, whatever is above the state directory."""
    folder = directory.path / "addresses"
    if folder.is_symlink() and not folder.exists():  # the system has cleaned its temporary folder
        folder.unlink()
    return owned_directory(folder).resolve() / "brokers.json"


def write(directory: StateDirectory, send: str, read: Sequence[str] = ()) -> Addresses:
    """Let the services send to one broker, and read the others as well. What says so already stays as it is.

    The generation never falls. Raises OSError; the old file is still there then.
    """
    file = place(directory)
    try:
        old = read_json(file, Addresses, "")
    except PlatformError:  # damaged: it is written anew
        old = None
    if old and (old.send, old.read) == (send, list(read)):
        return old
    new = Addresses(max(time.time_ns() // 1_000_000, old.generation + 1 if old else 0), send, list(read))
    replace(file, json.dumps(asdict(new)), before=hand_over)
    return new
