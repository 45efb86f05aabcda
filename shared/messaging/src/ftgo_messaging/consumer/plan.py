"""What becomes of each message of a batch: decided without the database, from what that has told."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from ftgo_messaging.consumer.dead_letters import Key
from ftgo_messaging.consumer.duplicates import Claim
from ftgo_messaging.consumer.letter import State
from ftgo_messaging.consumer.tasks import Task


@dataclass(frozen=True, slots=True)
class Plan:
    """``run`` in this order; keep ``kept`` as letters in this state. ``duplicates`` of them need nothing."""

    run: Sequence[Task]
    kept: Sequence[tuple[Task, State]]
    duplicates: int


def parks(task: Task, parking: Collection[str]) -> bool:
    """Whether later messages of its key wait for it if it fails; and so whether it waits for earlier ones."""
    return task.key is not None and task.received.channel in parking


def plan(tasks: Sequence[Task], new: Collection[Claim], parked: Collection[Key], parking: Collection[str]) -> Plan:
    """``new`` are the claims of the tasks that nobody has handled before, ``parked`` the keys that were parked before
    the batch, ``parking`` the channels on which a dead letter parks its key."""
    left, waiting = set(new), set(parked)
    run: list[Task] = []
    kept: list[tuple[Task, State]] = []
    for task in tasks:
        if task.claims is not None:
            if task.claims not in left:
                continue
            left.discard(task.claims)  # the same one twice in one batch
        if task.error:
            kept.append((task, State.DEAD))
            if task.key is not None and parks(task, parking):
                waiting.add(task.key)
        elif task.key in waiting:
            kept.append((task, State.PARKED))
        else:
            run.append(task)
    return Plan(run, kept, len(tasks) - len(run) - len(kept))
