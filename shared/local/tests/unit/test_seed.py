"""The seed against an imitation of the four services behind one port: what REST it speaks, and that it may repeat."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
from ftgo_local.errors import PlatformError
from ftgo_local.seed import Urls, seed


class FourServices(BaseHTTPRequestHandler):
    """Accounting opens an account only when it has been asked twice for it, as it does when events take their time."""

    things: ClassVar[dict[str, dict[str, Any]]] = {}
    credit: ClassVar[dict[str, str]] = {}
    asked_for_account: ClassVar[list[str]] = []
    refuse: ClassVar[bool] = False

    def do_GET(self) -> None:
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


@pytest.fixture
def services() -> Iterator[tuple[type[FourServices], Urls]]:
    handler = type("Fresh", (FourServices,), {"things": {}, "credit": {}, "asked_for_account": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    url = f"http://127.0.0.1:{server.server_port}"
    yield handler, Urls(url, url, url, url)
    server.shutdown()
    thread.join()
    server.server_close()


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
