"""How the lanes of a consumer are shared among its members: computed by each for itself, and so that all agree."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping


def shares(wants: Mapping[str, Collection[str]]) -> dict[str, dict[str, int]]:
    """How many lanes of each channel each member should have. ``wants``: the lanes that each living member reads.

    All members compute the same. The shares of a channel differ by one at most, and where all read the same channels
    their sums do too. During a rollout a channel is shared by those only that read it."""
    readers: dict[str, dict[str, None]] = defaultdict(dict)
    lanes: dict[str, set[str]] = defaultdict(set)
    for member in sorted(wants):
        for lane in wants[member]:
            readers[_channel(lane)][member] = None
            lanes[_channel(lane)].add(lane)
    share: dict[str, dict[str, int]] = {member: {} for member in sorted(wants)}
    for channel in sorted(lanes):
        each, more = divmod(len(lanes[channel]), len(readers[channel]))
        # What does not divide goes to those that have least so far.
        for place, member in enumerate(sorted(readers[channel], key=lambda m: (sum(share[m].values()), m))):
            share[member][channel] = each + (place < more)
    return share


def _channel(lane: str) -> str:
    return lane.rpartition("/")[0]


def _by_channel(lanes: Iterable[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    for lane in sorted(lanes):
        found[_channel(lane)].append(lane)
    return found


def fill(share: Mapping[str, int], held: Collection[str], free: Mapping[str, int]) -> dict[str, int]:
    """What to take of the lanes that are free."""
    have = _by_channel(held)
    rooms = {channel: max(0, count - len(have[channel])) for channel, count in share.items()}
    return {lane: free[lane] for channel, lanes in _by_channel(free).items() for lane in lanes[: rooms[channel]]}


def beyond(share: Mapping[str, int], held: Collection[str]) -> list[str]:
    """What to give up."""
    return [lane for channel, lanes in _by_channel(held).items() for lane in lanes[share[channel] :]]
