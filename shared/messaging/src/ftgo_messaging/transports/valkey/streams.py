"""The streams of a channel and the groups on them: made, looked at, cut. Raises the client's errors: see ``reach``."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from ftgo_messaging.transports.port import BrokerRefuses

CUT_EVERY = 5.0
"""Seconds. Members look after the streams that they read, and publishers after those that they write."""

DATA = "data"
"""The field of the body."""

_NOBODY = "-nobody-"


async def ask(client: Redis, *command: str | int) -> Any:
    # Not by the methods of the client: they make a dict of an entry, which loses a field that comes twice.
    execute: Any = client.execute_command
    return await execute(*command)


def stream(channel: str, lane: int) -> str:
    return f"{channel}:{lane}"


async def lanes_of(client: Redis, channel: str) -> int:
    """How many a channel has; 0 when there is no such channel."""
    return int(await ask(client, "HGET", f"{channel}:channel", "lanes") or 0)


async def examine(client: Redis) -> list[str]:
    """What is wrong with the server's settings, a sentence each."""
    found = await ask(client, "INFO", "persistence", "memory")
    wrong = []
    if not found.get("aof_enabled"):
        wrong.append("It has no append-only file: what it confirmed is lost when it ends. Set appendonly yes.")
    if found.get("maxmemory_policy", "noeviction") != "noeviction":
        wrong.append("It drops streams when its memory is full. Set maxmemory-policy noeviction.")
    return wrong


async def make(client: Redis, readers: Mapping[str, Collection[str]], lanes: int) -> list[str]:
    """Make what is missing of these channels, with a group for each reader. Returns which channels were not there.

    A group begins with what is kept. All of a channel is made at once: no publisher sees half of it. What is there is
    left alone: a consumer has to get in also while the server, whose memory is full, would refuse to make anything."""
    made = []
    for channel, groups in readers.items():
        found = await lanes_of(client, channel)
        if found not in {0, lanes}:
            raise BrokerRefuses(
                f"The channel {channel} has {found} lanes at the broker, and we are to use {lanes}: set lanes={found} "
                "in FTGO_BROKER_URL everywhere, or drain the channel, delete its streams and declare it again."
            )
        keys = [stream(channel, n) for n in range(lanes)]
        missing: list[tuple[str, str]] = []
        for key, there in zip(keys, await groups_of(client, keys), strict=True):
            wanted = groups or ([_NOBODY] if there is None else [])
            missing += [(key, group) for group in wanted if group not in (there or {})]
        if found and not missing:
            continue
        async with client.pipeline(transaction=True) as pipe:
            pipe.execute_command("HSETNX", f"{channel}:channel", "lanes", lanes)
            for key, group in missing:
                pipe.execute_command("XGROUP CREATE", key, group, "0", "MKSTREAM")
                if group == _NOBODY:
                    pipe.execute_command("XGROUP DESTROY", key, group)  # the stream stays
            new, *answers = await pipe.execute(raise_on_error=False)
        for answer in (new, *answers):
            if isinstance(answer, ResponseError) and not str(answer).startswith("BUSYGROUP"):
                raise answer
        if new:
            made.append(channel)
    return made


async def groups_of(client: Redis, streams: Sequence[str]) -> list[dict[str, dict[str, Any]] | None]:
    """For each stream, what the server knows of its groups, by their names; None when there is no such stream."""
    async with client.pipeline(transaction=False) as pipe:
        for key in streams:
            pipe.execute_command("XINFO GROUPS", key)
        answers = await pipe.execute(raise_on_error=False)
    found: list[dict[str, dict[str, Any]] | None] = []
    for answer in answers:
        if isinstance(answer, ResponseError):
            if "no such key" not in str(answer):
                raise answer
            found.append(None)
        else:
            found.append({_text(group["name"]): group for group in answer})
    return found


async def position_of(client: Redis, key: str, group: str) -> tuple[str, int | None] | None:
    """The last entry that the group has handled, and how many that makes, None if that is not known; None when there is
    no such group. One command, not a transaction: while its memory is full, the server refuses to begin one."""
    try:
        about = _pairs(await ask(client, "XINFO", "STREAM", key, "FULL", "COUNT", 1))
    except ResponseError as error:
        if "no such key" in str(error):
            return None
        raise
    for found in map(_pairs, about["groups"]):
        if _text(found["name"]) == group:
            count = found["entries-read"]
            if count is None and found["lag"] is not None:
                # It was made late. Before it has read anything, and at the end, the server knows how many are left.
                count = about["entries-added"] - found["lag"]
            return _text(found["last-delivered-id"]), count
    return None


async def cut(client: Redis, streams: Sequence[str], keep: int) -> list[dict[str, dict[str, Any]] | None]:
    """Delete what no group needs and is older than that; some entries more are kept where that is cheaper for the
    server. Never MAXLEN, which would delete what a slow consumer has not read. Returns what ``groups_of`` does."""
    seconds, _ = await ask(client, "TIME")
    found = await groups_of(client, streams)
    oldest = ((int(seconds) - keep) * 1000, 0)
    async with client.pipeline(transaction=False) as pipe:
        for key, groups in zip(streams, found, strict=True):
            if groups is not None:
                least = min([oldest, *(_number(group["last-delivered-id"]) for group in groups.values())])
                pipe.execute_command("XTRIM", key, "MINID", "~", f"{least[0]}-{least[1]}")
        await pipe.execute()
    return found


def _number(place: bytes | str) -> tuple[int, int]:
    milliseconds, _, sequence = _text(place).partition("-")
    return int(milliseconds), int(sequence)


def _pairs(flat: Sequence[Any]) -> dict[str, Any]:
    return {_text(name): value for name, value in zip(flat[::2], flat[1::2], strict=True)}


def _text(value: bytes | str) -> str:
    return value.decode(errors="backslashreplace") if isinstance(value, bytes) else value
