"""The six scenes of the tour. ``ftgo demo`` shows them; the end-to-end tests play the very same functions.

A scene is an async function of a Stage. The first line of its docstring is its title, the rest tells what to expect.
It raises Unexpected when the system does something else.
"""

import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal

from ftgo_local.scenes.changes import cancel_and_revise
from ftgo_local.scenes.duplicates import the_same_message_twice
from ftgo_local.scenes.orders import accepted_at_once, poor_consumer
from ftgo_local.scenes.outages import accounting_stopped, broker_stopped
from ftgo_local.scenes.stage import Stage

Needs = Literal["rest", "broker", "control", "own broker"]


@dataclass(frozen=True)
class Scene:
    """``needs`` is what a scene uses beside REST: a broker to write to, or a platform whose processes it may stop, the
    broker among them perhaps."""

    number: int
    play: Callable[[Stage], Awaitable[None]]
    needs: Needs = "rest"

    @property
    def title(self) -> str:
        return (inspect.getdoc(self.play) or "").partition("\n")[0]

    @property
    def expect(self) -> str:
        return (inspect.getdoc(self.play) or "").partition("\n")[2].strip()

    def lacks(self, stage: Stage) -> str | None:
        """What keeps the scene from being played on this stage, as a sentence; None when it can be played."""
        if self.needs in {"control", "own broker"} and stage.control is None:
            return "It stops and starts processes, which it may do only on a platform that `ftgo up` has started."
        if self.needs == "own broker" and stage.control is not None and stage.control.without_broker:
            return "It stops the broker, and there is none: the services talk to each other. Scene 3 stops one of them."
        if self.needs == "own broker" and stage.control is not None and stage.control.broker is None:
            return "It stops the broker, and this one runs elsewhere (FTGO_BROKER_URL)."
        if self.needs == "broker" and stage.broker is None:
            return "It writes to the broker: set FTGO_BROKER_URL, or FTGO_KAFKA_BOOTSTRAP."
        return None


SCENES = (
    Scene(1, accepted_at_once),
    Scene(2, poor_consumer),
    Scene(3, accounting_stopped, "control"),
    Scene(4, broker_stopped, "own broker"),
    Scene(5, the_same_message_twice, "broker"),
    Scene(6, cancel_and_revise),
)
