"""How lanes are shared among members: every lane once, and evenly in each channel and in sum."""

from collections.abc import Collection
from random import Random

from ftgo_messaging.consumer.lane_shares import beyond, fill, shares
from hypothesis import given
from hypothesis import strategies as st


def lanes_of(*channels: str, each: int = 12) -> list[str]:
    return [f"{channel}/{lane}" for channel in channels for lane in range(each)]


@given(st.integers(1, 40), st.lists(st.integers(1, 24), min_size=1, max_size=6), st.randoms())
def test_shares_are_even_in_each_channel_and_in_sum(count: int, sizes: list[int], random: Random) -> None:
    wanted = [lane for i, size in enumerate(sizes) for lane in lanes_of(f"c.{i}", each=size)]
    members = [f"m{i:02}" for i in range(count)]
    share = shares(dict.fromkeys(members, wanted))
    for i, size in enumerate(sizes):
        of_channel = [share[member][f"c.{i}"] for member in members]
        assert sum(of_channel) == size
        assert max(of_channel) - min(of_channel) <= 1
    sums = [sum(of_member.values()) for of_member in share.values()]
    assert max(sums) - min(sums) <= 1
    random.shuffle(members)
    random.shuffle(wanted)
    assert shares(dict.fromkeys(members, wanted)) == share, "all members compute the same"


def test_two_members_have_six_of_each_channel_and_five_have_what_is_nearest() -> None:
    wanted = lanes_of("a", "b")
    assert shares({"1": wanted, "2": wanted}) == {"1": {"a": 6, "b": 6}, "2": {"a": 6, "b": 6}}
    sums = [sum(share.values()) for share in shares(dict.fromkeys("12345", wanted)).values()]
    assert sorted(sums) == [4, 5, 5, 5, 5], "shares of ceil(12 / 5) = 3 in each would leave the fifth with none"


def test_a_channel_is_shared_by_those_that_read_it() -> None:
    """The new release reads one more channel, and both are running."""
    wants: dict[str, Collection[str]] = {"old": lanes_of("b"), "new 1": lanes_of("a", "b"), "new 2": lanes_of("a", "b")}
    assert shares(wants) == {"new 1": {"a": 6, "b": 4}, "new 2": {"a": 6, "b": 4}, "old": {"b": 4}}


def test_what_to_take_and_what_to_give_up() -> None:
    share = {"a": 2, "b": 1}
    free = {"a/0": 5, "a/1": 6, "a/2": 7, "b/7": 8}
    assert fill(share, ["a/9"], free) == {"a/0": 5, "b/7": 8}
    assert fill(share, ["a/8", "a/9", "b/0", "b/1"], free) == {}
    assert beyond(share, ["a/0", "a/1", "a/2", "b/0"]) == ["a/2"]
    assert beyond(share, ["a/1"]) == []
