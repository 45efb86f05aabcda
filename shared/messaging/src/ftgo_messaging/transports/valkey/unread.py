"""How many entries stand behind the positions of some groups."""

import json
from collections.abc import Collection, Mapping
from typing import Any

from redis.asyncio import Redis

from ftgo_messaging.transports.valkey.streams import stream

# The entries behind a position are counted, not told by the server: its own number is not known after some trims.
_COUNT = """
local found = {}
for i, key in ipairs(KEYS) do
  local wanted, sum = {}, 0
  for _, name in ipairs(cjson.decode(ARGV[1])) do wanted[name] = true end
  if redis.call('EXISTS', key) == 1 then
    for _, group in ipairs(redis.call('XINFO', 'GROUPS', key)) do
      local about = {}
      for j = 1, #group, 2 do about[group[j]] = group[j + 1] end
      if wanted[about['name']] then
        wanted[about['name']] = nil
        sum = sum + #redis.call('XRANGE', key, '(' .. about['last-delivered-id'], '+', 'COUNT', 100)
      end
    end
    for _ in pairs(wanted) do sum = sum + redis.call('XLEN', key) end
  end
  found[i] = sum
end
return found
"""


async def unread(client: Redis, readers: Mapping[str, Collection[str]], lanes: int) -> dict[str, int | None]:
    """For each lane of these channels, 100 at most for each consumer. One that has no group yet reads from the
    beginning. Raises the client's errors: see ``reach``."""
    found: dict[str, int | None] = {}
    for channel, consumers in readers.items():
        keys = [stream(channel, lane) for lane in range(lanes)]
        execute: Any = client.execute_command
        counts = await execute("EVAL_RO", _COUNT, lanes, *keys, json.dumps(list(consumers)))
        found |= {f"{channel}/{lane}": int(count) for lane, count in enumerate(counts)}
    return found
