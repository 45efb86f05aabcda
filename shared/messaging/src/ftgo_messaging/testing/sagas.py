"""A conversation with a saga, as given/when/then: start it, see what it asks, answer, see how it ends."""

from dataclasses import replace
from typing import Any

from ftgo_messaging.messages import codec
from ftgo_messaging.messages import message as m
from ftgo_messaging.messages.commands import Command
from ftgo_messaging.messages.ids import new_id
from ftgo_messaging.messages.message import Message
from ftgo_messaging.messages.registry import by_name
from ftgo_messaging.messages.replies import Reply
from ftgo_messaging.outbox import writer
from ftgo_messaging.sagas.instance import SagaInstance
from ftgo_messaging.sagas.orchestrator import Orchestrator
from ftgo_messaging.sagas.timeouts import remind
from ftgo_messaging.testing.memory import Memory


class SagaConversation:
    """Plays all participants of one saga instance against a ``Memory``."""

    def __init__(self, orchestrator: Orchestrator, memory: Memory, saga_id: str) -> None:
        self._orchestrator = orchestrator
        self._memory = memory
        self.saga_id = saga_id

    @property
    def instance(self) -> SagaInstance:
        return self._memory.get(self._orchestrator.instances, self.saga_id)

    @property
    def asked(self) -> list[Message]:
        """Commands of this saga so far, oldest first."""
        return [x for x in self._memory.messages if x.headers.get(m.SAGA_ID) == self.saga_id]

    def last_command(self) -> Command[Any]:
        """What the saga asked last, decoded."""
        last = self.asked[-1]
        command: Command[Any] = codec.decode(last.body, by_name(last.type).cls)
        return command

    async def overdue(self) -> bool:
        """Let the time of the awaited command be over, and the reconciler pass by. Returns whether it did anything."""
        self._memory.put(self._orchestrator.instances, replace(self.instance, due_in=-1.0))
        return await self._memory.run(lambda uow: remind(self._orchestrator, self.saga_id, uow))

    async def reply(self, reply: Reply, to: Message | None = None, message_id: str | None = None) -> None:
        """Answer the last command, or an earlier one given as ``to`` (a late reply)."""
        message = writer.reply_message(reply, message_id or new_id(), "participant", to or self.asked[-1])
        if message is None:
            raise ValueError("that command asks for no reply")
        await self._memory.run(lambda uow: self._orchestrator.on_reply(reply, uow, message), message)
