"""Gathering answers to an event: until there are enough, or until the deadline; what comes later changes nothing."""

from dataclasses import replace
from datetime import timedelta

import pytest
from ftgo_messaging.gathering.collector import Collector, Gathering, GatheringState, gatherings, gatherings_table
from ftgo_messaging.messages import message as m
from ftgo_messaging.messages.channel import Channel
from ftgo_messaging.messages.documents import Document
from ftgo_messaging.messages.events import DomainEvent
from ftgo_messaging.messages.ids import new_id
from ftgo_messaging.messages.message import Kind
from ftgo_messaging.messages.registry import by_class, reply_type
from ftgo_messaging.messages.replies import Reply
from ftgo_messaging.outbox import writer
from ftgo_messaging.runtime.errors import Undecodable
from ftgo_messaging.testing.memory import Memory
from ftgo_messaging.transaction.unit_of_work import UnitOfWork
from sqlalchemy import MetaData

GATHERINGS = gatherings(gatherings_table(MetaData()))
QUESTIONS = Channel("question.events", Kind.EVENT)
ANSWERS = Channel("question.answers", Kind.REPLY)
PAPERS = Channel("papers", Kind.DOCUMENT, key=lambda d: d.about)


@QUESTIONS.carries("question.Asked", replies_to=(ANSWERS,))
class Asked(DomainEvent, frozen=True, kw_only=True):
    pass


@reply_type("question.Word")
class Word(Reply, frozen=True, kw_only=True):
    word: str


@PAPERS.carries("question.Paper")
class Paper(Document, frozen=True, kw_only=True):
    about: str


class Gatherings:
    """A memory with one gathering that expects two answers."""

    def __init__(self) -> None:
        self.memory = Memory("asker")
        self.ends: list[Gathering] = []
        self.collector = Collector("words", GATHERINGS, ANSWERS, self.on_end)

    async def on_end(self, gathering: Gathering, uow: UnitOfWork) -> None:
        self.ends.append(gathering)

    async def ask(self) -> str:
        async def ask(uow: UnitOfWork) -> str:
            return self.collector.ask(Asked(), uow, subject="s", version=1, expected=2, within=timedelta(seconds=10))

        return await self.memory.run(ask)

    async def answer(self, word: str, source: str = "somebody") -> None:
        message = writer.reply_message(Word(word=word), new_id(), source, self.memory.messages[0])
        assert message is not None
        await self.memory.run(lambda uow: self.collector.on_answer(Word(word=word), uow, message), message)

    async def close(self) -> bool:
        (gathering_id,) = (key for _, key in self.memory.aggregates)
        return await self.memory.run(lambda uow: self.collector.close(gathering_id, uow))

    def time_is_over(self) -> None:
        for (kind, key), gathering in list(self.memory.aggregates.items()):
            self.memory.aggregates[kind, key] = replace(gathering, due_in=-0.1)

    @property
    def kept(self) -> Gathering:
        (gathering,) = self.memory.aggregates.values()
        return gathering


def words(gathering: Gathering) -> list[tuple[str, str]]:
    return [(a.source, a.reply.word) for a in gathering.answers if isinstance(a.reply, Word)]


async def test_the_event_names_the_reply_channel_and_the_answers_name_the_event() -> None:
    g = Gatherings()
    gathering_id = await g.ask()
    (event,) = g.memory.messages
    assert (event.id, event.headers[m.REPLY_CHANNEL], event.headers[m.KIND]) == (gathering_id, ANSWERS.name, "event")
    answer = writer.reply_message(Word(word="a"), new_id(), "x", event)
    assert answer is not None
    assert (answer.channel, answer.key) == (ANSWERS.name, gathering_id)
    assert answer.headers[m.IN_REPLY_TO] == gathering_id
    assert answer.headers[m.CORRELATION_ID] == event.headers[m.CORRELATION_ID]


async def test_it_ends_once_with_the_expected_number() -> None:
    g = Gatherings()
    await g.ask()
    await g.answer("yes", "ann")
    assert (g.ends, g.kept.state) == ([], GatheringState.OPEN)
    await g.answer("no", "bob")
    for late in ("late", "later"):
        await g.answer(late, "cyd")
    g.time_is_over()
    assert not await g.close()
    (end,) = g.ends
    assert (end.state, words(end)) == (GatheringState.COMPLETE, [("ann", "yes"), ("bob", "no")])
    assert (g.kept.state, g.kept.answers) == (GatheringState.COMPLETE, end.answers)
    assert [(a.source, a.type) for a in g.kept.late] == [("cyd", "question.Word")] * 2


async def test_it_ends_once_at_its_deadline_with_what_is_there() -> None:
    g = Gatherings()
    await g.ask()
    await g.answer("yes")
    assert not await g.close()  # there is time left
    g.time_is_over()
    assert await g.close()
    assert not await g.close()
    await g.answer("late")
    (end,) = g.ends
    assert (end.state, words(end)) == (GatheringState.TIMED_OUT, [("somebody", "yes")])
    assert (len(g.kept.answers), len(g.kept.late)) == (1, 1)


async def test_late_answers_are_bounded() -> None:
    g = Gatherings()
    await g.ask()
    for number in range(2 + 150):
        await g.answer(f"{number}")
    assert len(g.kept.late) == 100
    assert g.kept.late[-1].reply == Word(word="151")


async def test_an_answer_to_nothing_is_a_dead_letter() -> None:
    g = Gatherings()
    await g.ask()
    g.memory.aggregates.clear()
    with pytest.raises(Undecodable, match="unknown gathering"):
        await g.answer("yes")


async def test_a_collector_leaves_the_gatherings_of_others_alone() -> None:
    g = Gatherings()
    await g.ask()
    g.time_is_over()
    g.collector = Collector("other words", GATHERINGS, ANSWERS, g.on_end)
    assert not await g.close()
    with pytest.raises(Undecodable, match="unknown gathering"):
        await g.answer("yes")


async def test_an_event_must_list_the_channel_that_it_is_to_be_answered_on() -> None:
    elsewhere = Channel("elsewhere", Kind.REPLY)
    g = Gatherings()
    g.collector = Collector("words", GATHERINGS, elsewhere, g.on_end)
    with pytest.raises(LookupError, match="does not list elsewhere"):
        await g.ask()
    forged = writer.event_message(Asked(), new_id(), "forger", None, "s", 1, elsewhere)
    with pytest.raises(Undecodable, match="may not be answered to 'elsewhere'"):
        writer.check_return_address(by_class(Asked), forged)


async def test_a_document_is_sent_on_its_channel_with_its_key() -> None:
    memory = Memory("sender")

    async def send(uow: UnitOfWork) -> None:
        uow.send_document(Paper(about="soap"))

    await memory.run(send)
    (paper,) = memory.messages
    assert (paper.channel, paper.key, paper.headers[m.KIND]) == ("papers", "soap", "document")
    assert m.SEQUENCE not in paper.headers
    assert memory.sent() == [Paper(about="soap")]
    with pytest.raises(LookupError, match="no document channel"):
        writer.document_message(Asked(), new_id(), "sender", None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="a document channel needs a key rule"):
        Channel("papers", Kind.DOCUMENT)
