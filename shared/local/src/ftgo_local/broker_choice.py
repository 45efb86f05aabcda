"""Which broker a start uses: what the user asks for, else that of the last start, else Kafka; what a change means."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from urllib.parse import urlsplit

from ftgo_local.brokers.kinds import DEFAULT, KINDS, kind_of, shown
from ftgo_local.errors import PlatformError
from ftgo_local.files import read_json, replace
from ftgo_local.state import StateDirectory

VARIABLE = "FTGO_BROKER_URL"


@dataclass(frozen=True)
class Choice:
    """``url``: of a broker that runs elsewhere; without it, `ftgo` starts one of its own. ``leaves``: during a move,
    the name of ours that was used before, and is still read."""

    name: str
    url: str = ""
    leaves: str = ""

    @property
    def title(self) -> str:
        kind = KINDS.get(self.name)
        return kind.title if kind else self.name

    @property
    def own(self) -> str | None:
        """The name, where `ftgo` starts it."""
        return None if self.url else self.name

    def __str__(self) -> str:
        return f"{self.title} at {shown(self.url)}" if self.url else self.title


def choose(asked: str | None, directory: StateDirectory, environment: Mapping[str, str]) -> Choice:
    """FTGO_BROKER_URL; else what is asked for; else the broker of the last start. Raises PlatformError, also when a
    move is under way and another broker is asked for than that to which it leads."""
    found, last = _asked_for(asked, directory, environment), remembered(directory)
    if last is None or not last.leaves:
        return found
    if (found.name, found.url) != (last.name, ""):
        raise PlatformError(
            f"A move from {KINDS[last.leaves].title} to {last.title} is under way, and both have messages.",
            f"`ftgo up --broker {last.name}` goes on with it, without {VARIABLE}; then `ftgo broker move` moves on.",
        )
    return last


def _asked_for(asked: str | None, directory: StateDirectory, environment: Mapping[str, str]) -> Choice:
    if url := environment.get(VARIABLE):
        found = _named_by(url)
        if asked is not None and asked != found.name:
            raise PlatformError(
                f"{VARIABLE} is an address of {found.title}, and --broker asks for {KINDS[asked].title}.",
                f"Unset {VARIABLE} to start one here, or leave --broker out.",
            )
        return found
    if asked is not None:
        return Choice(asked)
    last = remembered(directory)
    return last if last and not last.url and last.name in KINDS else Choice(DEFAULT)


def _named_by(url: str) -> Choice:
    parts, kind = urlsplit(url), kind_of(url)
    is_file = kind is not None and not kind.runs
    if not parts.scheme or not (parts.path if is_file else parts.netloc):
        schemes = ", ".join(f"{kind.schemes[0]}://" for kind in KINDS.values())
        raise PlatformError(
            f"{VARIABLE} is no address of a broker.", f"It looks like SCHEME://HOST:PORT; the schemes are {schemes}"
        )
    return Choice(kind.name if kind else parts.scheme, url)


def remembered(directory: StateDirectory) -> Choice | None:
    """That of the last start; None before the first. A copy from before there was a choice has run on Kafka."""
    found = read_json(directory.broker, Choice, "Delete it: the next start asks no more which broker was the last.")
    return found or (Choice(DEFAULT) if (directory.path / DEFAULT).exists() else None)


def remember(choice: Choice, directory: StateDirectory) -> None:
    """Without user and password: it serves to be compared. Raises OSError."""
    url = shown(choice.url) if choice.url else ""
    replace(directory.broker, json.dumps(asdict(Choice(choice.name, url, choice.leaves))))


def changed(new: Choice, directory: StateDirectory) -> str:
    """What a change of the broker means for the messages, in sentences; empty when it is that of the last start."""
    old = remembered(directory)
    if new.leaves:
        return f"The move from {KINDS[new.leaves].title} to {new.title} goes on: both are read."
    if old is None or old == Choice(new.name, shown(new.url) if new.url else ""):
        return ""
    what_waits = f"The broker was {old} and is {new} now. What waits in the outboxes goes to {new.title}, in order."
    if old.name in KINDS and not KINDS[old.name].runs:
        return f"{what_waits} Nothing is left behind."
    back = f"{VARIABLE}={old.url} ftgo up" if old.url else f"ftgo up --broker {old.name}"
    return (
        f"{what_waits} What nobody has read at {old.title} stays there, and is not read meanwhile. To have it handled: "
        f"`ftgo down`, `{back}`, and change again when `ftgo saga list` shows nothing."
    )
