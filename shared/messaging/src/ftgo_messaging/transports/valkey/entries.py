"""Entries of several streams at once, so many and so large as wanted, and each as a record whatever it holds.

XREAD could be told how many entries it may return of each stream, not how many bytes: a dozen streams of large entries
would be hundreds of megabytes. A script at the server counts, and returns everything in two strings, which redis-py
reads three times as fast.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

from redis.asyncio import Redis

from ftgo_messaging.messages import message as m
from ftgo_messaging.transports.port import Record
from ftgo_messaging.transports.valkey.streams import DATA, ask, stream

BATCH_BYTES = 1_000_000
_APART = (m.KEY, DATA)

# From each stream in turn some entries, so that a stream with many does not keep the others waiting.
_FETCH = """
local most, left = tonumber(ARGV[1]), tonumber(ARGV[2])
local places, numbers, parts, more = {}, {}, {}, true
for i = 1, #KEYS do places[i] = ARGV[i + 2] end
while more and most > 0 do
  more = false
  for i, key in ipairs(KEYS) do
    if most == 0 then break end
    local found = redis.call('XRANGE', key, '(' .. places[i], '+', 'COUNT', math.min(most, 16))
    for _, entry in ipairs(found) do
      local size = 0
      for _, part in ipairs(entry[2]) do size = size + #part end
      if size > left and #parts > 0 then most = 0 break end
      left, most, more = left - size, most - 1, true
      places[i] = entry[1]
      numbers[#numbers + 1] = i - 1
      numbers[#numbers + 1] = #entry[2] + 1
      numbers[#numbers + 1] = #entry[1]
      parts[#parts + 1] = entry[1]
      for _, part in ipairs(entry[2]) do
        numbers[#numbers + 1] = #part
        parts[#parts + 1] = part
      end
    end
  end
end
return {table.concat(numbers, ' '), table.concat(parts)}
"""


@dataclass(slots=True, eq=False)
class Lane:
    """One that a member reads. ``at`` is the last entry that was taken, empty as long as the broker was not asked.
    ``settled`` is the group's position, and ``count`` how many entries of the stream it covers, None if not known."""

    channel: str
    number: int
    at: str = ""
    settled: str = ""
    count: int | None = None

    @property
    def name(self) -> str:
        return f"{self.channel}/{self.number}"

    @property
    def stream(self) -> str:
        return stream(self.channel, self.number)


async def fetch(client: Redis, lanes: Sequence[Lane], most: int) -> list[tuple[Record, Lane, str]]:
    """The next records of these lanes with their lanes and places; the lanes then stand behind them."""
    keys, places = [lane.stream for lane in lanes], [lane.at for lane in lanes]
    answer = await ask(client, "EVAL_RO", _FETCH, len(keys), *keys, most, BATCH_BYTES, *places)
    numbers, everything = iter(map(int, answer[0].split())), answer[1]
    found = []
    begin = 0
    for index in numbers:
        lane = lanes[index]
        parts: list[bytes] = []
        for size in islice(numbers, next(numbers)):
            parts.append(everything[begin : begin + size])
            begin += size
        lane.at = parts[0].decode()
        found.append((to_record(lane, lane.at, parts[1:]), lane, lane.at))
    return found


def to_record(lane: Lane, place: str, fields: Sequence[bytes]) -> Record:
    """Of names and values in turn. Anybody may have written them, with any bytes as a name, and one name twice."""
    headers: list[tuple[str, bytes | None]] = []
    once: dict[str, bytes] = {}
    defects = []
    for raw, value in zip(fields[::2], fields[1::2], strict=True):
        name = raw.decode(errors="backslashreplace")
        if name in _APART and name not in once:
            once[name] = value
            continue
        headers.append((name, value))
        if name in _APART:
            defects.append(f"it has the field {name} twice")
        elif name.encode() != raw:
            defects.append(f"the name of the field {name} is not UTF-8")
    if DATA not in once:
        defects.append(f"it has no field {DATA}")
    origin = f"{lane.name}@{place}"
    return Record(lane.channel, once.get(m.KEY), headers, once.get(DATA), origin, "; ".join(defects[:3]))
