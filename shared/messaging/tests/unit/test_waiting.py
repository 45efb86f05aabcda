import asyncio
import socket

import pytest
from ftgo_messaging.runtime.waiting import NotThere, reason, seconds_to_wait, wait_for
from sqlalchemy.exc import DBAPIError

CURE = "Start it."


class Server:
    """Fails with one error after the other, then answers."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.asked = 0

    async def ask(self) -> str:
        self.asked += 1
        if self.errors:
            raise self.errors.pop(0)
        return "answer"


async def test_it_is_asked_until_it_answers_and_meanwhile_it_is_told_why():
    server, told = Server(ConnectionRefusedError(111, "Connect call failed")), []
    assert await wait_for("The server", server.ask, CURE, tell=told.append) == "answer"
    assert server.asked == 2
    assert told == ["Waiting for The server (0 of 120 s): connection refused"]


async def test_what_waiting_does_not_cure_is_told_at_once():
    server = Server(PermissionError("wrong password"))
    with pytest.raises(NotThere, match=r"^The server refuses: wrong password\. Start it\.$"):
        await wait_for("The server", server.ask, CURE, refusals=(PermissionError,))
    assert server.asked == 1


async def test_a_bug_is_no_refusal():
    server = Server(KeyError("x"))
    with pytest.raises(KeyError):
        await wait_for("The server", server.ask, CURE, refusals=(PermissionError,))
    assert server.asked == 1


async def test_the_deadline_is_a_sentence_with_cause_and_cure(monkeypatch):
    monkeypatch.setenv("FTGO_WAIT_SECONDS", "0.3")
    server = Server(*(TimeoutError() for _ in range(1000)))
    with pytest.raises(NotThere) as end:
        await wait_for("The server", server.ask, CURE, tell=lambda _: None)
    assert str(end.value) == (
        "The server was not there within 0.3 s: no answer. Start it. FTGO_WAIT_SECONDS is how long a job waits."
    )
    assert 1 < server.asked < 20


async def test_an_attempt_that_hangs_is_cut_off():
    attempts = []

    async def hang_once() -> str:
        attempts.append(1)
        if len(attempts) == 1:
            await asyncio.get_running_loop().create_future()
        return "answer"

    assert await wait_for("The server", hang_once, CURE, each=0.05, tell=lambda _: None) == "answer"


@pytest.mark.parametrize("text", ["soon", "-1", "inf", "nan"])
def test_a_wrong_setting_is_told(monkeypatch, capsys, text):
    monkeypatch.setenv("FTGO_WAIT_SECONDS", text)
    with pytest.raises(SystemExit) as end:
        seconds_to_wait()
    assert end.value.code == 2
    assert capsys.readouterr().err == f"FTGO_WAIT_SECONDS: a number of seconds from 0, not {text!r}\n"


def test_a_reason_is_short():
    wrapped = OSError("All connection attempts failed")
    wrapped.__cause__ = ConnectionRefusedError(111, "Connect call failed ('127.0.0.1', 1)")
    assert reason(wrapped) == "connection refused"
    assert reason(socket.gaierror(-2, "Name or service not known")) == "unknown host (Name or service not known)"
    assert reason(DBAPIError("SELECT 1", None, ValueError("the database system is starting up"))) == (
        "the database system is starting up"
    )
    assert reason(KeyError()) == "KeyError"
