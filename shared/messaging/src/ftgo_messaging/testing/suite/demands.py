"""What a test of the suite asks of a broker, and what it keeps for the page about brokers."""

import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from ftgo_messaging.messages.message import Message
from ftgo_messaging.testing.suite.judging import disorder, doubled, missing
from ftgo_messaging.testing.suite.members import Subject, Wire
from ftgo_messaging.transports.port import Record


def record(subject: Subject, name: str, value: object) -> None:
    """Keep a figure for the page about brokers, if somebody wants it."""
    if path := os.environ.get("FTGO_BROKER_RESULTS"):
        results = json.loads(Path(path).read_text()) if Path(path).exists() else {}
        results.setdefault(subject.traits.name, {})[name] = value
        Path(path).write_text(json.dumps(results, indent=1))


def needs(wire: Wire, *traits: str) -> None:
    for trait in traits:
        if not getattr(wire.traits, trait):
            pytest.skip(f"{wire.traits.name} does not promise {trait}")


@asynccontextmanager
async def killed(subject: Subject) -> AsyncIterator[None]:
    """While the broker is away; there again afterwards, whatever happens."""
    if subject.kill is None or subject.start is None:
        pytest.skip(f"{subject.traits.name} does not promise a server that can be killed")
    await subject.kill()
    try:
        yield
    finally:
        await subject.start()


def needs_processes(wire: Wire) -> None:
    if wire.subject.url is None:
        pytest.skip(f"{wire.traits.name} does not promise members in other processes")


def complete(sent: list[Message], log: list[Record]) -> None:
    """All came, once, in order."""
    assert missing(sent, log) == []
    assert doubled(log) == []
    assert disorder(log) == 0
