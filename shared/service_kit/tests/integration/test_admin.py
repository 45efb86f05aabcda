"""The admin API of dead letters on a real PostgreSQL: who may do what, and what it does."""

import base64
import hmac
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog
from ftgo_local.postgres import Postgres
from ftgo_messaging import Channel, DomainEvent, Kind, new_id
from ftgo_messaging.consumer import dead_letters
from ftgo_messaging.consumer.letter import State
from ftgo_messaging.consumer.tables import dead_letters_table
from ftgo_messaging.messages.message import ID, TYPE
from ftgo_messaging.runtime.connection import begin
from ftgo_messaging.transports.port import Record
from ftgo_service_kit.app import create_app
from ftgo_service_kit.bearer import read_public_key
from ftgo_service_kit.service import Service
from ftgo_service_kit.settings import ServiceSettings
from joserfc import jwt
from joserfc.jwk import ECKey, OctKey, RSAKey
from pydantic import ValidationError
from sqlalchemy import MetaData, text

METADATA = MetaData()
dead_letters_table(METADATA)
KEY = ECKey.generate_key("P-256", private=True)
STRANGER = ECKey.generate_key("P-256", private=True)
LETTERS = "/admin/dead-letters"
ROUTES = [
    ("GET", LETTERS, "dead-letters:read"),
    ("GET", f"{LETTERS}/1", "dead-letters:read"),
    ("POST", f"{LETTERS}/1/redrive", "dead-letters:write"),
    ("POST", f"{LETTERS}/1/discard", "dead-letters:write"),
]
Noted = Channel("admin.events", Kind.EVENT).carries("admin.Noted")(
    type("Noted", (DomainEvent,), {}, frozen=True, kw_only=True)
)


def claims(**changes: Any) -> dict[str, Any]:
    every = {
        "iss": "ftgo-admin",
        "aud": "ftgo-admin-test",
        "exp": int(time.time()) + 60,
        "sub": "olga",
        "scope": "dead-letters:read dead-letters:write",
    } | changes
    return {name: value for name, value in every.items() if value is not None}


def token(key: Any = KEY, header: dict[str, Any] | None = None, **changes: Any) -> str:
    header = header or {"alg": "ES256"}
    return jwt.encode(header, claims(**changes), key, algorithms=[header["alg"]])


def bearer(**changes: Any) -> dict[str, str]:
    return {"Authorization": f"Bearer {token(**changes)}"}


@pytest.fixture(scope="module")
def key_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("admin") / "admin.jwk"
    path.write_text(json.dumps(KEY.as_dict(private=False)))
    return path


@pytest.fixture(scope="module")
async def service(postgres: Postgres, key_file: Path) -> AsyncIterator[Service]:
    dsn = (await postgres.create_service_databases(["admin"]))["admin"]
    settings = ServiceSettings(
        port=1, database_url=dsn, FTGO_KAFKA_BOOTSTRAP="127.0.0.1:1", FTGO_ADMIN_KEY_FILE=key_file
    )
    service = Service("admin-test", settings)
    async with service.engine.begin() as connection:
        await connection.run_sync(METADATA.create_all)
    service.attach(create_app("Admin", "For tests."))
    yield service
    await service.pools.close()


@pytest.fixture
async def http(service: Service) -> AsyncIterator[httpx.AsyncClient]:
    async with service.engine.begin() as connection:
        await connection.execute(text("TRUNCATE dead_letters RESTART IDENTITY"))
    transport = httpx.ASGITransport(app=service.app)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        yield client


async def keep(service: Service, *states: State) -> None:
    """Letters of one key."""
    for n, state in enumerate(states):
        headers = [(ID, new_id().encode()), (TYPE, b"admin.Noted"), ("raw", b"\xff")]
        received = Record("admin.events", b"key", headers, b"\xff body", f"admin.events/0@{n}")
        async with begin(service.engine) as connection:
            await dead_letters.write(
                connection, "admin", received, f"Traceback\nNo {n}", parks_key=True, state=state, identified=True
            )


async def test_without_the_right_scope_nothing_opens(http: httpx.AsyncClient, service: Service) -> None:
    await keep(service, State.DEAD)
    scopes = ["", "dead-letters", "dead-letters:read", "dead-letters:write", "dead-letters:read dead-letters:write"]
    for method, path, needed in ROUTES:
        for scope in scopes:
            answer = await http.request(method, path, headers=bearer(scope=scope))
            if needed in scope.split():
                assert answer.status_code in {200, 202, 409}, (path, scope)
            else:
                assert answer.status_code == 403, (path, scope)
                assert answer.headers["content-type"] == "application/problem+json"
                assert answer.json()["type"] == "urn:ftgo:forbidden"
                assert "insufficient_scope" in answer.headers["www-authenticate"]
        assert (await http.request(method, path, headers=bearer(scope=None))).status_code == 403


async def test_no_bad_token_opens_anything(http: httpx.AsyncClient) -> None:
    now = int(time.time())
    rsa = RSAKey.generate_key(2048)
    good = token()
    bad = {
        "of a stranger": token(key=STRANGER),
        "expired": token(exp=now - 60),
        "without expiry": token(exp=None),
        "of another issuer": token(iss="somebody"),
        "without issuer": token(iss=None),
        "for another service": token(aud="ftgo-order"),
        "without audience": token(aud=None),
        "without subject": token(sub=None),
        "not yet": token(nbf=now + 600),
        "by another algorithm": token(key=rsa, header={"alg": "RS256"}),
        "signed with the public key": signed_with(KEY.as_pem(private=False)),
        "with its own key": token(key=STRANGER, header={"alg": "ES256", "jwk": STRANGER.as_dict(private=False)}),
        "unsigned": ".".join([jwt_part({"alg": "none"}), jwt_part(claims()), ""]),
        "without signature": good.rsplit(".", 1)[0] + ".",
        "changed": good[:-8] + ("A" if good[-8] != "A" else "B") + good[-7:],
        "rubbish": "rubbish",
        "empty": "",
    }
    headers = [{}, {"Authorization": f"Basic {good}"}, *({"Authorization": f"Bearer {t}"} for t in bad.values())]
    for method, path, _ in ROUTES:
        for name, given in zip(["none", "another scheme", *bad], headers, strict=True):
            answer = await http.request(method, path, headers=given)
            assert answer.status_code == 401, (name, path)
            assert answer.json()["type"] == "urn:ftgo:unauthorized"
            assert answer.headers["www-authenticate"] == "Bearer"


def base64url(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


def jwt_part(value: dict[str, Any]) -> str:
    return base64url(json.dumps(value).encode())


def signed_with(secret: bytes) -> str:
    text = f"{jwt_part({'alg': 'HS256'})}.{jwt_part(claims())}"
    return f"{text}.{base64url(hmac.digest(secret, text.encode(), 'sha256'))}"


async def test_pages_neither_skip_nor_repeat(http: httpx.AsyncClient, service: Service) -> None:
    await keep(service, State.DEAD, *[State.PARKED] * 6)
    found, cursor = [], None
    for _ in range(4):
        given = {"limit": 2} | ({"cursor": cursor} if cursor else {})
        page = (await http.get(LETTERS, params=given, headers=bearer())).json()
        found += [letter["id"] for letter in page["deadLetters"]]
        cursor = page["next"]
    assert (found, cursor) == (list(range(1, 8)), None)
    only = (await http.get(LETTERS, params={"state": "DEAD"}, headers=bearer())).json()["deadLetters"]
    assert [letter["id"] for letter in only] == [1]
    assert "body" not in only[0]
    for cursor in ("rubbish", "LTE="):
        answer = await http.get(LETTERS, params={"cursor": cursor}, headers=bearer())
        assert answer.json()["type"] == "urn:ftgo:bad-cursor"


async def test_one_is_shown_whole(http: httpx.AsyncClient, service: Service) -> None:
    await keep(service, State.DEAD)
    letter = (await http.get(f"{LETTERS}/1", headers=bearer())).json()
    assert letter["bodyBase64"] == "/yBib2R5"
    assert letter["headers"][1:] == [["type", "admin.Noted"], ["raw", "\\xff"]]
    assert (letter["key"], letter["type"], letter["state"], letter["attempts"]) == ("key", "admin.Noted", "DEAD", 1)
    for unknown in (2, -1, 10**30):
        answer = await http.get(f"{LETTERS}/{unknown}", headers=bearer())
        assert (answer.status_code, answer.json()["type"]) == (404, "urn:ftgo:no-such-dead-letter")


async def test_a_write_leaves_a_line_in_the_log(http: httpx.AsyncClient, service: Service) -> None:
    await keep(service, State.DEAD, State.PARKED)
    with structlog.testing.capture_logs() as logs:
        answer = await http.post(f"{LETTERS}/1/redrive", headers=bearer())
        assert (answer.status_code, answer.json()["state"]) == (202, "REDRIVE")
        again = await http.post(f"{LETTERS}/1/redrive", headers=bearer())
        assert (again.status_code, again.json()) == (202, answer.json())
        waits = await http.post(f"{LETTERS}/2/redrive", headers=bearer())
        assert (waits.status_code, waits.json()["type"]) == (409, "urn:ftgo:dead-letter-not-resolvable")
        gone = await http.post(f"{LETTERS}/2/discard", headers=bearer(sub="otto"))
        assert (gone.status_code, gone.json()["state"]) == (200, "DISCARDED")
    lines = [(x["action"], x["letter"], x["subject"], x["outcome"]) for x in logs if x["event"] == "audit.dead_letter"]
    assert lines == [
        ("redrive", 1, "olga", "done"),
        ("redrive", 1, "olga", "done"),
        ("redrive", 2, "olga", "dead-letter-not-resolvable"),
        ("discard", 2, "otto", "done"),
    ]


async def test_it_is_off_without_a_key(postgres: Postgres) -> None:
    settings = ServiceSettings(port=1, database_url=postgres.dsn(), FTGO_KAFKA_BOOTSTRAP="127.0.0.1:1")
    service = Service("off", settings)
    service.attach(create_app("Off", "For tests."))
    transport = httpx.ASGITransport(app=service.app)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        for method, path, _ in ROUTES:
            assert (await client.request(method, path, headers=bearer())).status_code == 404


def test_a_key_file_that_is_not_a_public_key_ends_the_start(tmp_path: Path) -> None:
    path = tmp_path / "key"
    for content, sentence in [
        (json.dumps(KEY.as_dict(private=True)), "holds a private key"),
        (json.dumps(ECKey.generate_key("P-384").as_dict(private=False)), "needs P-256"),
        (json.dumps(OctKey.generate_key().as_dict()), "no JWK of a P-256 key"),
        ("rubbish", "no JWK of a P-256 key"),
    ]:
        path.write_text(content)
        with pytest.raises(ValueError, match=sentence):
            read_public_key(path)
    with pytest.raises(ValidationError, match="no JWK"):
        ServiceSettings(port=1, database_url="postgres://x", FTGO_KAFKA_BOOTSTRAP="x", FTGO_ADMIN_KEY_FILE=path)
