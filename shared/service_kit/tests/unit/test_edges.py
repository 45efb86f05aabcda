"""Settings, cursors, schemas, publisher state: the small edges of a service."""

import asyncio

import pytest
from ftgo_contracts.money import Money
from ftgo_messaging import new_id
from ftgo_messaging.transports.port import Sent
from ftgo_service_kit.database import async_url
from ftgo_service_kit.observed import ObservedPublisher
from ftgo_service_kit.paging import BadCursor, decode_cursor, encode_cursor
from ftgo_service_kit.schemas import Amount, ApiModel, MoneyOut, Text, UuidStr
from ftgo_service_kit.settings import ServiceSettings, read_settings
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from pydantic_settings import SettingsConfigDict


class SmallSettings(ServiceSettings):
    model_config = SettingsConfigDict(env_prefix="FTGO_SMALL_", extra="ignore")


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setenv("FTGO_SMALL_PORT", "8090")
    monkeypatch.setenv("FTGO_SMALL_DATABASE_URL", "postgresql://small:hidden@127.0.0.1/small")
    monkeypatch.setenv("FTGO_KAFKA_BOOTSTRAP", "127.0.0.1:9092")
    return monkeypatch


def test_settings_come_from_the_environment(environment):
    settings = read_settings(SmallSettings)
    assert (settings.host, settings.port, settings.pool_size) == ("127.0.0.1", 8090, 4)
    assert settings.broker_url == "kafka://127.0.0.1:9092"


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("FTGO_SMALL_PORT", "0"),
        ("FTGO_SMALL_PORT", "many"),
        ("FTGO_SMALL_POOL_SIZE", "1"),
        ("FTGO_SMALL_DATABASE_URL", "mysql://small:hidden@127.0.0.1/small"),
        ("FTGO_LOG_FORMAT", "xml"),
    ],
)
def test_a_wrong_setting_is_named_and_no_password_shown(environment, capsys, variable, value):
    environment.delenv(variable) if value is None else environment.setenv(variable, value)
    with pytest.raises(SystemExit) as end:
        read_settings(SmallSettings)
    said = capsys.readouterr().err
    assert end.value.code == 2
    assert said.startswith(f"{variable}: ")
    assert said.count("\n") == 1
    assert "hidden" not in said


@pytest.mark.parametrize(
    ("url", "said"), [(None, "Field required"), ("smoke://here", "'smoke' is no broker's scheme"), ("", "no address")]
)
def test_a_broker_that_is_none_is_told_in_a_line(environment, capsys, url, said):
    environment.delenv("FTGO_KAFKA_BOOTSTRAP")
    if url is not None:
        environment.setenv("FTGO_BROKER_URL", url)
    with pytest.raises(SystemExit) as end:
        read_settings(SmallSettings)
    (line,) = capsys.readouterr().err.splitlines()
    assert end.value.code == 2
    assert line.startswith("FTGO_BROKER_URL: ")
    assert said in line


@pytest.mark.parametrize("scheme", ["postgresql", "postgres"])
def test_both_names_of_postgresql_are_understood(scheme):
    assert async_url(f"{scheme}://a:b@c:1/d") == "postgresql+asyncpg://a:b@c:1/d"


def test_a_cursor_gives_its_id_back():
    last = new_id()
    assert decode_cursor(encode_cursor(last)) == last
    assert decode_cursor(None) is decode_cursor("") is None


@given(st.text(min_size=1))
def test_a_foreign_cursor_is_refused(text):
    with pytest.raises(BadCursor):
        decode_cursor(text)


class View(ApiModel):
    order_id: UuidStr
    order_total: MoneyOut


class Body(ApiModel):
    first_name: Text
    amount: Amount


def test_answers_are_camel_case_and_money_is_a_string():
    view = View(order_id=new_id(), order_total=Money.of("61.7"))
    assert view.model_dump(mode="json", by_alias=True) == {"orderId": view.order_id, "orderTotal": "61.70"}


@pytest.mark.parametrize(
    "body",
    [
        {"firstName": "A", "amount": "1.234"},
        {"firstName": "A", "amount": "-1"},
        {"firstName": "A", "amount": "1.00\n"},
        {"firstName": "A", "amount": "\u0661"},
        {"firstName": "A", "amount": 1},
        {"firstName": "A\x00", "amount": "1"},
        {"firstName": "A\ud800", "amount": "1"},
        {"firstName": "", "amount": "1"},
        {"firstName": "A" * 201, "amount": "1"},
        {"firstName": "A", "amount": "1", "more": 1},
    ],
)
def test_bad_bodies_are_refused(body):
    with pytest.raises(ValidationError):
        Body.model_validate(body)


@given(st.from_regex(r"\A[0-9]{1,9}(\.[0-9]{1,2})?\Z"))
def test_every_amount_of_the_edge_is_money(text):
    assert Money.of(Body(first_name="A", amount=text).amount) >= Money.zero()


class Broker:
    def __init__(self) -> None:
        self.answer: list[bool] | Exception = []

    async def publish(self, messages):
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


async def test_the_state_of_publishing_can_be_told():
    broker = Broker()
    publisher = ObservedPublisher(broker)
    assert publisher.state == "idle"
    broker.answer = [Sent.CONFIRMED, Sent.CONFIRMED]
    assert (await publisher.publish([]), publisher.state) == ([Sent.CONFIRMED, Sent.CONFIRMED], "ok")
    broker.answer = [Sent.CONFIRMED, Sent.REFUSED]
    assert (await publisher.publish([]), publisher.state) == ([Sent.CONFIRMED, Sent.REFUSED], "failing: refused")
    broker.answer = ConnectionRefusedError()
    with pytest.raises(ConnectionRefusedError):
        await publisher.publish([])
    assert publisher.state == "failing: ConnectionRefusedError"
    broker.answer = [Sent.CONFIRMED]
    await asyncio.gather(publisher.publish([]))
    assert publisher.state == "ok"
