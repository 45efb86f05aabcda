"""Which bodies are read, and from whom: strict JSON in UTF-8, said to be so, and from no page of another site."""

from collections.abc import AsyncIterator
from typing import Annotated

import httpx
import pytest
from ftgo_messaging import new_id
from ftgo_service_kit.app import create_app
from ftgo_service_kit.json_body import MOST_FIELDS, JsonRouter
from ftgo_service_kit.schemas import ABSENT_IF_BLANK, ApiModel, Email, Text, Time
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

JSON = "application/json"


class Person(ApiModel):
    name: Text
    street2: Annotated[Text | None, ABSENT_IF_BLANK] = None
    email: Annotated[Email | None, ABSENT_IF_BLANK] = None
    born: Time | None = None


@pytest.fixture(scope="module")
def writes() -> list[Person | None]:
    return []


@pytest.fixture(scope="module")
def app(writes):
    app = create_app("Test", "For tests.")
    router = JsonRouter()

    @router.post("/people")
    async def register(body: Person) -> Person:
        writes.append(body)
        return body

    @router.post("/people/{person_id}/block")
    async def block(person_id: str) -> str:
        writes.append(None)
        return person_id

    app.include_router(router)
    return app


@pytest.fixture
async def http(app, writes) -> AsyncIterator[httpx.AsyncClient]:
    writes.clear()
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://test:8082") as client:
        yield client


async def send(http, body: bytes, **headers: str) -> httpx.Response:
    return await http.post("/people", content=body, headers={n.replace("_", "-"): v for n, v in headers.items()})


@pytest.mark.parametrize(
    "kind",
    [JSON, "Application/JSON", f"{JSON};charset=utf-8", f'{JSON}; charset="UTF-8"', "application/person+json; v=1"],
)
async def test_json_is_read_however_its_type_is_written(http, kind):
    assert (await send(http, b'{"name": "Ada"}', content_type=kind)).json()["name"] == "Ada"


@pytest.mark.parametrize(
    "kind",
    [
        *(None, "", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "json"),
        *("text/json", "application/xml", "image/svg+json", f"{JSON}; charset=utf-16", f"{JSON}; charset=latin-1"),
    ],
)
async def test_a_body_of_another_type_is_a_415_that_says_what_to_send(http, writes, kind):
    answer = await send(http, b'{"name": "Ada"}', **({} if kind is None else {"content_type": kind}))
    assert (answer.status_code, answer.json()["type"]) == (415, "urn:ftgo:unsupported-media-type")
    assert answer.headers["content-type"] == "application/problem+json"
    assert (answer.headers["accept"], "Content-Type: application/json" in answer.json()["detail"]) == (JSON, True)
    assert writes == []


async def test_a_compressed_body_is_a_415(http):
    answer = await send(http, b"\x1f\x8b", content_type=JSON, content_encoding="gzip")
    assert (answer.status_code, answer.headers["accept-encoding"]) == (415, "identity")


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b'{"name": "Ada", "name": "Eve"}', "names the same field twice"),
        (b'{"name": "Ada", "more": [{"a": 1, "\\u0061": 2}]}', "names the same field twice"),
        ('{"name": "Ada"}'.encode("utf-16"), "byte 0 is not UTF-8"),
        ('{"name": "Ada"}'.encode("utf-16-le"), "JSON"),
        ('{"name": "Ada"}'.encode("utf-32-be"), "JSON"),
        ('{"name": "Ada"}'.encode("utf-8-sig"), "byte order mark"),
        ('{"name": "Zo\u00eb"}'.encode("latin-1"), "byte 12 is not UTF-8"),
        (b'{"name": NaN}', "NaN is not a number"),
        (b'{"name": [-Infinity]}', "-Infinity is not a number"),
        (b'{"name": 1' + b"0" * 9000 + b"}", "thousands of digits"),
        (b"[" * 60_000, "nested too deeply"),
        (b'{"name": "Ada"} {}', "Extra data (character 16)"),
        (b"{" + b",".join(b'"%d":0' % i for i in range(MOST_FIELDS + 1)) + b"}", f"has {MOST_FIELDS + 1} fields"),
    ],
)
async def test_what_two_readers_could_read_differently_is_a_400_that_says_why(http, writes, body, reason):
    answer = await send(http, body, content_type=JSON)
    assert (answer.status_code, answer.json()["type"]) == (400, "urn:ftgo:malformed-json")
    assert reason in answer.json()["detail"]
    assert writes == []


ANOTHERS = [
    {"Sec-Fetch-Site": "cross-site", "Origin": "http://evil.example"},
    {"Sec-Fetch-Site": "same-site", "Origin": "http://test:9999"},
    {"Sec-Fetch-Site": "cross-site", "Origin": "null"},
    {"Origin": "http://evil.example"},
    {"Origin": "http://test"},
    {"Origin": "null"},
]
OWN = [
    {},
    {"Sec-Fetch-Site": "same-origin", "Origin": "http://test:8082"},
    {"Sec-Fetch-Site": "none"},
    {"Origin": "http://test:8082"},
    {"Origin": "http://TEST:8082"},
]


@pytest.mark.parametrize("marks", ANOTHERS)
async def test_a_page_of_another_site_cannot_write_even_without_a_body(http, writes, marks):
    for answer in (
        await http.post("/people/1/block", headers=marks),
        await http.post("/people", json={"name": "Ada"}, headers=marks),
    ):
        assert (answer.status_code, answer.json()["type"]) == (403, "urn:ftgo:other-site")
    assert writes == []
    assert (await http.get("/livez", headers=marks)).status_code == 200


@pytest.mark.parametrize("marks", OWN)
async def test_pages_of_this_host_and_programs_may_write(http, marks):
    assert (await http.post("/people/1/block", headers=marks)).status_code == 200
    assert (await http.post("/people", json={"name": "Ada"}, headers=marks)).status_code == 200


async def test_the_document_declares_both_refusals_where_they_happen(http):
    paths = (await http.get("/openapi.json")).json()["paths"]
    assert {"403", "415"} <= set(paths["/people"]["post"]["responses"])
    assert "403" in paths["/people/{person_id}/block"]["post"]["responses"]
    assert "415" not in paths["/people/{person_id}/block"]["post"]["responses"]
    assert not {"403", "415"} & set(paths["/livez"]["get"]["responses"])


@pytest.mark.parametrize(
    "name",
    [
        *("Ada Lovelace", "Zoë", "Ægir", "李小龍", "محمد", "שרה", "สมชาย", "Nguyễn Văn Ánh", "नरेन्द्र", "O’Brien-Smith"),
        "می‌خواهم",  # Persian, spelt with a zero-width non-joiner
        "ක්‍රි",  # Sinhala, spelt with a zero-width joiner
        "\U0001f468\u200d\U0001f373 Cook",  # an emoji made of two
        "Caf\u00e9\u00a0Noir",  # a blank that does not break
        "\U0001fae8",  # younger than this Python's Unicode
        "7",
        "+",
    ],
)
def test_names_of_all_scripts_are_taken_as_they_are(name):
    assert Person(name=name).name == name


@pytest.mark.parametrize("code", [*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029, 0xFEFF, 0xE000, 0xAD, 0xE0061])
def test_control_characters_are_refused(code):
    with pytest.raises(ValidationError, match="control character U\\+"):
        Person(name=f"a{chr(code)}b")


@pytest.mark.parametrize(
    "code", [*range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x200E, 0x200F, 0x61C, 0x200B, 0x2060]
)
def test_what_turns_the_direction_of_writing_or_hides_is_refused(code):
    with pytest.raises(ValidationError, match="control character U\\+"):
        Person(name=f"a{chr(code)}b")


@pytest.mark.parametrize(
    "name", ["", " ", "\t\n", "\u00a0", "\u3000", "\u200d", "\u3164", "\u2800", "\u0301", "\ufe0f"]
)
def test_a_name_that_shows_nothing_is_refused(name):
    with pytest.raises(ValidationError):
        Person(name=name)


def test_blanks_around_a_text_are_taken_away_and_do_not_count():
    assert Person(name="  Ada\u3000\n").name == "Ada"
    assert Person(name=" " * 300 + "A" * 200).name == "A" * 200


@pytest.mark.parametrize("blank", ["", "  ", None])
def test_what_may_be_left_out_may_be_blank(blank):
    person = Person(name="Ada", street2=blank, email=blank)
    assert (person.street2, person.email) == (None, None)


@given(st.text())
def test_every_text_is_taken_or_refused_and_what_is_taken_can_be_stored(text):
    try:
        name = Person(name=text).name
    except ValidationError:
        return
    assert "\x00" not in name.encode().decode()
    assert name == name.strip() != ""


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("2030-01-01T19:00:00Z", "2030-01-01T19:00:00Z"),
        ("2030-01-01t19:00:00z", "2030-01-01T19:00:00Z"),
        ("2030-01-01T19:00:00.123456789+02:00", "2030-01-01T17:00:00.123456Z"),
        ("0002-01-01T00:00:00Z", "0002-01-01T00:00:00Z"),
        ("9998-12-31T23:59:59.999999Z", "9998-12-31T23:59:59.999999Z"),
    ],
)
async def test_a_time_comes_back_as_the_same_moment_with_its_zone(http, written, read):
    assert (await http.post("/people", json={"name": "Ada", "born": written})).json()["born"] == read


@pytest.mark.parametrize(
    "time",
    [
        *(1, 1.5, True, 1893524400, "1", "20300101", "1893524400", "2030-01-01", "2030-01-01T19:00:00", "", "soon"),
        *("2030-01-01 19:00:00Z", "2030-01-01T19:00Z", "2030-1-1T19:00:00Z", "2030-01-01T19:00:00+0200"),
        *("2030-01-01T19:00:00.Z", "\u0662030-01-01T19:00:00Z", " 2030-01-01T19:00:00Z", "2030-01-01T19:00:00Z\n"),
        *("2030-02-30T19:00:00Z", "2030-13-01T19:00:00Z", "2030-01-01T24:00:00Z", "2030-01-01T19:00:60Z"),
        *(
            "0001-01-01T00:00:00Z",
            "9999-12-31T23:59:59.999999Z",
            "9999-12-31T23:59:00-05:00",
            "0001-01-01T00:00:00+05:00",
        ),
    ],
)
async def test_a_time_that_is_none_is_refused_in_words(http, time):
    answer = await http.post("/people", json={"name": "Ada", "born": time})
    (error,) = answer.json()["errors"]
    assert (answer.status_code, error["field"]) == (422, "born")
    assert error["message"].startswith(("is not a time", "must be in the years"))


@pytest.mark.parametrize("email", ["bob", "@", "a@b@c", "a b@c.d", 'a@\x7f"'])
async def test_a_wrong_email_is_explained_in_words(http, email):
    (error,) = (await http.post("/people", json={"name": "Bob", "email": email})).json()["errors"]
    assert error == {"field": "email", "message": "is not an e-mail address like ada@example.com"}


async def test_both_names_of_a_field_at_once_are_refused(http):
    """The one in camelCase and the one of the code: which of two values counts is not to be guessed."""

    class Visit(ApiModel):
        person_id: str

    first, second = new_id(), new_id()
    with pytest.raises(ValidationError):
        Visit.model_validate({"personId": first, "person_id": second})
