"""One lane in the hands of a member: what has come and was not taken yet, and whether one is missing in between."""

from collections import deque
from dataclasses import dataclass, field

from nats.aio.msg import Msg
from nats.aio.subscription import Subscription as Inbox

from ftgo_messaging.transports.nats.wire import read
from ftgo_messaging.transports.port import Record

WINDOW = 200
"""Records of a lane that wait in memory, at most."""


@dataclass(slots=True, eq=False)
class Item:
    """A record, where its acknowledgement goes, its place in the stream, and its size."""

    record: Record
    ack: str
    place: int
    size: int


@dataclass(slots=True, eq=False)
class Lane:
    """Two numbers come with every delivery: the place in the stream, and the how-many-eth of this durable it is since
    its reset. A gap in the latter says that something went to somebody else: the predecessor, who was paused and had a
    request open. Then the durable is reset, and gives it again, before anything later."""

    channel: str
    number: int
    stream: str
    durable: str
    items: deque[Item] = field(default_factory=deque)
    inbox: Inbox | None = None  # none: it is not begun
    asked: float = 0.0  # when it was to begin
    wanted: int = 0  # of the open request, still to come
    until: float = 0.0  # it is open
    one: bool = False  # the next one is too large to be asked for with others
    gone: bool = False  # the durable
    gap: bool = False
    expected: int = 1
    last: int = 0  # place of the newest that came
    settled: int = 0

    @property
    def name(self) -> str:
        return f"{self.channel}/{self.number}"

    def begin(self, inbox: Inbox) -> None:
        """The durable was reset: it counts from 1 again, and gives again what is not acknowledged."""
        self.inbox, self.wanted, self.expected, self.gap = inbox, 0, 1, False

    def receive(self, msg: Msg) -> str:
        """Keep it, if it is the next. Returns the acknowledgement of one that is settled and came again, or nothing."""
        if not msg.reply:
            self._ended(msg.headers or {})
            return ""
        self.wanted -= 1
        place, number = _numbers(msg.reply)
        if self.gap or number != self.expected:
            self.gap = self.gap or number > self.expected
            return ""
        self.expected += 1
        if place <= self.last:
            return msg.reply if place <= self.settled else ""
        self.last = place
        raw: bytes = getattr(msg.headers, "raw", b"")
        key, headers, defect = read(raw)
        record = Record(self.channel, key, headers, msg.data, f"{self.name}@{place}", defect)
        self.items.append(Item(record, msg.reply, place, len(raw) + len(msg.data)))
        return ""

    def _ended(self, status: dict[str, str]) -> None:
        """The server closes the request: it was open for its time, or the next record is larger than the rest of it."""
        text = status.get("Description", "").lower()
        self.one = "maxbytes" in text.replace(" ", "")
        self.gone = "deleted" in text or status.get("Status") == "503"
        self.wanted = 0


def _numbers(reply: str) -> tuple[int, int]:
    """``$JS.ACK.[DOMAIN.ACCOUNT.]STREAM.DURABLE.TIMES.PLACE.NUMBER.TIME.WAITING[.TOKEN]``"""
    parts = reply.split(".")
    first = 5 if len(parts) == 9 else 7
    return int(parts[first]), int(parts[first + 1])
