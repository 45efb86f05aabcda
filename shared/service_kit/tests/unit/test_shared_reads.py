"""Those who ask at the same time share one read, and nobody gets an answer that is older than the question."""

import asyncio

import pytest
from ftgo_service_kit.shared_reads import SharedReads


class Source:
    """Answers with the number of the read; each read ends when the test says so."""

    def __init__(self):
        self.reads = []
        self.error = None
        self.go_on = asyncio.Semaphore(0)

    async def read(self, questions):
        self.reads.append(sorted(questions))
        number = len(self.reads)
        await self.go_on.acquire()
        if self.error:
            raise self.error
        return {question: number for question in questions if question != "unknown"}


def asking(reads, *questions):
    return [asyncio.create_task(reads.ask(question)) for question in questions]


async def begun(source, number):
    async with asyncio.timeout(5):
        while len(source.reads) < number:  # noqa: ASYNC110 - some turns of the loop
            await asyncio.sleep(0)


async def test_all_who_ask_meanwhile_share_the_next_read():
    source = Source()
    reads = SharedReads(source.read)
    first = asking(reads, "a", "a", "b", "unknown")
    await begun(source, 1)
    later = asking(reads, *["a"] * 500)
    await asyncio.sleep(0)
    source.go_on.release()
    assert await asyncio.gather(*first) == [1, 1, 1, None]
    await begun(source, 2)
    source.go_on.release()
    assert set(await asyncio.gather(*later)) == {2}
    assert source.reads == [["a", "b", "unknown"], ["a"]]


async def test_a_caller_that_goes_away_takes_nothing_from_the_others():
    source = Source()
    reads = SharedReads(source.read)
    gone, stays = asking(reads, "a", "a")
    await begun(source, 1)
    gone.cancel()
    source.go_on.release()
    assert await stays == 1


async def test_a_failure_is_everybodys_and_the_next_read_is_tried():
    source = Source()
    reads = SharedReads(source.read)
    source.error = OSError("away")
    asked = asking(reads, *["a"] * 100)
    source.go_on.release()
    failures = await asyncio.gather(*asked, return_exceptions=True)
    assert {repr(failure) for failure in failures} == {"OSError('away')"}
    source.error = None
    source.go_on.release()
    assert await reads.ask("a") == 2


async def test_nobody_left_to_hear_of_a_failure_is_no_failure():
    source = Source()
    source.error = OSError("away")
    (gone,) = asking(SharedReads(source.read), "a")
    await begun(source, 1)
    gone.cancel()
    source.go_on.release()
    with pytest.raises(asyncio.CancelledError):
        await gone
