"""Every message that was ever published is still understood.

``golden/`` holds one body of each type and version, as it was published. Files are never changed: Kafka keeps old
messages, and other services run old releases. A new version adds a file; FTGO_WRITE_GOLDEN=1 writes those that are
missing. A version may go when nobody sends it and no topic holds it any more, and its file with it.
"""

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

import ftgo_contracts.accounting.replies
import ftgo_contracts.consumer.replies
import ftgo_contracts.kitchen.replies
import msgspec
import pytest
from ftgo_contracts import channels
from ftgo_contracts.accounting import commands as _accounting_commands  # noqa: F401 - they declare themselves
from ftgo_contracts.accounting import events as _accounting_events  # noqa: F401
from ftgo_contracts.consumer import commands as _consumer_commands  # noqa: F401
from ftgo_contracts.consumer import events as _consumer_events  # noqa: F401
from ftgo_contracts.kitchen import commands as _kitchen_commands  # noqa: F401
from ftgo_contracts.kitchen import events as _kitchen_events  # noqa: F401
from ftgo_contracts.money import Money
from ftgo_contracts.order import events as _order_events  # noqa: F401
from ftgo_contracts.types import Id, Quantity
from ftgo_messaging import Reply
from ftgo_messaging.messages import codec
from ftgo_messaging.messages.registry import MessageType, by_class, by_name

GOLDEN = Path(__file__).parent / "golden"
REPLY_MODULES = (
    ftgo_contracts.accounting.replies,
    ftgo_contracts.consumer.replies,
    ftgo_contracts.kitchen.replies,
)
REPLIES = {
    cls
    for module in REPLY_MODULES
    for cls in vars(module).values()
    if isinstance(cls, type) and issubclass(cls, Reply) and cls.__module__ == module.__name__
}
TYPES = sorted(
    [t for c in channels.ALL_CHANNELS for t in c.types.values()] + [by_class(cls) for cls in REPLIES],
    key=lambda t: t.name,
)

SAMPLES: dict[Any, Any] = {
    Id: "01900000-0000-7000-8000-000000000001",
    Quantity: 3,
    Money: Money.of("12.34"),
    str: "Großmutters Küche",
    datetime: datetime(2030, 1, 1, 18, 30, tzinfo=UTC),
}


def sample(kind: Any) -> Any:
    """A value of a field's type, or a whole message, with something in every field."""
    if kind in SAMPLES:
        return SAMPLES[kind]
    if get_origin(kind) is tuple:
        return (sample(get_args(kind)[0]),) * 2
    if isinstance(kind, UnionType):
        return sample(get_args(kind)[0])
    hints = get_type_hints(kind, include_extras=True)
    return kind(**{f.name: sample(hints[f.name]) for f in msgspec.structs.fields(kind)})


def path(kind: MessageType) -> Path:
    return GOLDEN / f"{kind.name}-v{kind.version}.json"


@pytest.mark.parametrize("kind", TYPES, ids=lambda t: t.name)
def test_every_type_has_its_file(kind: MessageType) -> None:
    if os.environ.get("FTGO_WRITE_GOLDEN") and not path(kind).exists():
        body = json.loads(codec.encode(sample(kind.cls)))
        path(kind).write_text(json.dumps(body, indent=1, ensure_ascii=False) + "\n")
    assert path(kind).exists()


@pytest.mark.parametrize("file", sorted(GOLDEN.glob("*.json")), ids=lambda f: f.stem)
def test_what_was_published_is_read_whole(file: Path) -> None:
    """In every version, and with fields that nobody here knows. A field that is renamed, dropped or of another type is
    found here, and one that old bodies lack."""
    published = json.loads(file.read_text())
    cls = by_name(file.stem.rpartition("-v")[0]).cls
    body = codec.decode(json.dumps({**published, "addedLater": {"by": ["a", "newer", "sender"]}}), cls)
    again = json.loads(codec.encode(body))
    assert {name: again.get(name) for name in published} == published
