"""The seed against an imitation of the four services behind one port: what REST it speaks, and that it may repeat."""

import asyncio
import json
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
from ftgo_local.errors import PlatformError
from ftgo_local.ports import free_port
from ftgo_local.seed import Urls, seed


class FourServices(BaseHTTPRequestHandler):
    """Accounting opens an account only when it has been asked twice for it, as it does when events take their time."""

    things: ClassVar[dict[str, dict[str, Any]]] = {}
    credit: ClassVar[dict[str, str]] = {}
    asked_for_account: ClassVar[list[str]] = []
    refuse: ClassVar[bool] = False
    readiness: ClassVar[list[int]] = []

    def do_GET(self) -> None:
        if self.path == "/readyz":
            self._answer(self.readiness.pop(0) if self.readiness else 200, {})
            return
        thing = self.things.get(self.path.split("/")[2])
        self._answer(200 if thing else 404, thing or {})

    def do_POST(self) -> None:
        body = self._body()
        if self.refuse:
            self._answer(422, {"detail": "orderLimit is wrong"})
        elif self.path.endswith("/block"):
            self.things[self.path.split("/")[2]]["status"] = "BLOCKED"
            self._answer(200, {})
        else:
            number = str(len(self.things))
            self.things[number] = {**body, "status": "ACTIVE"}
            self._answer(201, {"consumerId" if self.path == "/consumers" else "id": number})

    def do_PUT(self) -> None:
        consumer = self.path.split("/")[2]
        self.asked_for_account.append(consumer)
        limit = self._body()["creditLimit"]
        if len(self.asked_for_account) > 2:
            self.credit[consumer] = limit
        self._answer(200 if consumer in self.credit else 404, {})

    def _body(self) -> dict[str, Any]:
        text = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body: dict[str, Any] = json.loads(text) if text else {}
        return body

    def _answer(self, status: int, body: dict[str, Any]) -> None:
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def served(port: int = 0, readiness: Sequence[int] = ()) -> Iterator[tuple[type[FourServices], Urls]]:
    """The four services on that port, whose first answers to /readyz are those given."""
    fresh = {"things": {}, "credit": {}, "asked_for_account": [], "readiness": list(readiness)}
    handler = type("Fresh", (FourServices,), fresh)
    server = ThreadingHTTPServer(("127.0.0.1", port), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield handler, Urls(url, url, url, url)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def services() -> Iterator[tuple[type[FourServices], Urls]]:
    with served() as made:
        yield made


async def test_three_consumers_and_two_restaurants(services: tuple[type[FourServices], Urls], tmp_path: Path) -> None:
    handler, urls = services
    ids = await seed(urls, tmp_path / "seed.json")
    statuses = {name: handler.things[id_]["status"] for name, id_ in ids["consumers"].items()}
    assert statuses == {"good": "ACTIVE", "poor": "ACTIVE", "blocked": "BLOCKED"}
    assert handler.credit == {ids["consumers"]["poor"]: "10.00"}
    assert len(ids["restaurants"]) == 2


async def test_a_second_run_makes_nothing(services: tuple[type[FourServices], Urls], tmp_path: Path) -> None:
    handler, urls = services
    ids = await seed(urls, tmp_path / "seed.json")
    assert await seed(urls, tmp_path / "seed.json") == ids
    assert len(handler.things) == 5


async def test_what_is_remembered_but_gone_is_made_again(
    services: tuple[type[FourServices], Urls], tmp_path: Path
) -> None:
    handler, urls = services
    ids = await seed(urls, tmp_path / "seed.json")
    # The databases were emptied, the file was not.
    handler.things["used"] = handler.things.pop(ids["restaurants"]["wok"])
    again = await seed(urls, tmp_path / "seed.json")
    assert again["consumers"] == ids["consumers"]
    assert again["restaurants"]["wok"] in handler.things


async def test_a_refusal_is_told_with_the_answer(services: tuple[type[FourServices], Urls], tmp_path: Path) -> None:
    handler, urls = services
    handler.refuse = True
    with pytest.raises(PlatformError, match=r"422.*orderLimit is wrong"):
        await seed(urls, tmp_path / "seed.json")


async def _job(urls: Urls, file: Path, **more: str) -> asyncio.subprocess.Process:
    """The job that a container runs."""
    addresses = {f"FTGO_{name.upper()}_URL": url for name, url in vars(urls).items()}
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "ftgo_local.seed"),
        env={**os.environ, **addresses, "FTGO_SEED_FILE": str(file), **more},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def test_the_job_waits_for_services_that_start_later(tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    job = await _job(Urls(url, url, url, url), tmp_path / "seed.json")
    assert job.stderr
    first = (await job.stderr.readline()).decode()
    assert first == f"Waiting for consumer at {url} (0 of 120 s): connection refused\n"
    with served(int(url.rpartition(":")[2]), readiness=[503, 502]) as (handler, _):
        _, said = await job.communicate()
    assert job.returncode == 0, said.decode()
    assert len(handler.things) == 5


async def test_a_service_that_never_comes_is_told_in_a_sentence(tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    job = await _job(Urls(url, url, url, url), tmp_path / "seed.json", FTGO_WAIT_SECONDS="1")
    _, said = await job.communicate()
    assert job.returncode == 1
    last = said.decode().splitlines()[-1]
    assert last.startswith(f"consumer at {url} was not there within 1 s: connection refused. ")
    assert "FTGO_CONSUMER_URL" in last


async def test_an_answer_that_no_waiting_changes_is_told_at_once(tmp_path: Path) -> None:
    with served(readiness=[421]) as (handler, urls):
        job = await _job(urls, tmp_path / "seed.json")
        _, said = await job.communicate()
    assert (job.returncode, said.decode().count("\n")) == (1, 1)
    assert "refuses: GET /readyz was answered with 421" in said.decode()
    assert not handler.things
