"""What `ftgo status` says of services."""

from typing import Any

import httpx
import pytest
from ftgo_local import cli, status


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (httpx.Response(200, json={"deadLetters": {"kitchen": {"dead": 1}}}), (True, {"kitchen": {"dead": 1}})),
        (httpx.Response(503, json={"ready": False}), (False, {})),
        (httpx.Response(200, text="no JSON"), (True, {})),
        (httpx.ConnectError("away"), (False, {})),
    ],
)
async def test_readiness_and_dead_letters_are_asked_together(answer: Any, said: Any) -> None:
    def handle(_: httpx.Request) -> httpx.Response:
        if isinstance(answer, httpx.Response):
            return answer
        raise answer

    async with httpx.AsyncClient(transport=httpx.MockTransport(handle)) as client:
        found = await status._ask(client, "http://service")
    assert (found["ready"], found["deadLetters"]) == said


def test_parked_keys_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    unit = {"pid": 1, "log": "", "status": "running", "restarts": 0, "url": "nats://user:secret@host:4222"}
    counts = {"kitchen": {"dead": 1, "parked": 3, "parkedKeys": 1}, "kitchen-other": {"redrive": 1}}
    services = {
        "kitchen": unit | {"url": "http://k", "ready": True, "deadLetters": counts},
        "order": unit | {"url": "http://o", "ready": True, "deadLetters": {}},
    }
    cli._show({"services": services, "postgres": unit, "broker": "nats", "nats": unit})
    shown = capsys.readouterr().out
    assert "kitchen: dead letters 5, parked keys 1. `ftgo dead-letters list kitchen` shows them." in shown
    assert "order: dead letters" not in shown
    assert "nats://host:4222" in shown
    assert "secret" not in shown
