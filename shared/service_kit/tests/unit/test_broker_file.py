"""What a file that names brokers has to hold, and how it is told what is wrong: never with a password."""

import json
from pathlib import Path

import pytest
from ftgo_service_kit.broker_file import Addresses, BadBrokerFile, kind_of, name_of, read_broker_file
from ftgo_service_kit.settings import ServiceSettings, read_settings
from pydantic_settings import SettingsConfigDict

KAFKA, RABBIT = "kafka://127.0.0.1:9092", "amqp://ftgo:hidden@127.0.0.1"


class Settings(ServiceSettings):
    model_config = SettingsConfigDict(env_prefix="FTGO_ANY_", extra="ignore")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "brokers.json"


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, file: Path) -> pytest.MonkeyPatch:
    monkeypatch.setenv("FTGO_ANY_PORT", "1")
    monkeypatch.setenv("FTGO_ANY_DATABASE_URL", "postgresql://x")
    monkeypatch.setenv("FTGO_BROKER_FILE", str(file))
    return monkeypatch


def test_it_names_where_to_send_and_what_else_to_read(file: Path) -> None:
    file.write_text(json.dumps({"generation": 7, "send": RABBIT, "read": [KAFKA, RABBIT, KAFKA]}))
    found = read_broker_file(file)
    assert found == Addresses(RABBIT, (KAFKA,), 7)
    assert found.all == (RABBIT, KAFKA)
    assert [kind_of(url) for url in found.all] == ["rabbitmq", "kafka"]
    file.write_text(json.dumps({"generation": 8, "send": KAFKA}))
    assert read_broker_file(file) == Addresses(KAFKA, (), 8)


BAD = {
    "": "no JSON",
    "[]": "should hold an object",
    "{}": "generation should be a number from 1",
    '{"generation": "1", "send": "kafka://x"}': "generation should be a number from 1",
    '{"generation": true, "send": "kafka://x"}': "generation should be a number from 1",
    '{"generation": 0, "send": "kafka://x"}': "generation should be a number from 1",
    '{"generation": 1}': "send should be the URL of a broker",
    '{"generation": 1, "send": "kafka://x", "read": "kafka://y"}': "read a list of such URLs",
    '{"generation": 1, "send": "kafka://x", "read": [1]}': "read a list of such URLs",
    '{"generation": 1, "send": "hidden"}': "a URL of send names no broker: it has no scheme",
    '{"generation": 1, "send": "kafka://x", "read": ["smoke://hidden"]}': "'smoke' is no broker's scheme",
    '{"generation": 1, "send": "kafka://x", "sent": "hidden"}': "has sent, which means nothing",
}


@pytest.mark.parametrize("content", BAD)
def test_what_is_wrong_is_told_in_a_line_at_the_start(
    environment: pytest.MonkeyPatch, file: Path, content: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file.write_text(content)
    with pytest.raises(BadBrokerFile, match=BAD[content]):
        read_broker_file(file)
    with pytest.raises(SystemExit) as end:
        read_settings(Settings)
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("FTGO_BROKER_FILE: ")
    assert BAD[content] in line
    assert "hidden" not in line


def test_a_file_that_is_not_there_is_told_as_well(
    environment: pytest.MonkeyPatch, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        read_settings(Settings)
    assert f"{file} cannot be read (No such file or directory)" in capsys.readouterr().err


def test_the_file_comes_before_the_url(environment: pytest.MonkeyPatch, file: Path) -> None:
    file.write_text(json.dumps({"generation": 1, "send": KAFKA}))
    environment.setenv("FTGO_BROKER_URL", "smoke://here")
    settings = read_settings(Settings)
    assert (settings.broker_file, settings.broker_url) == (file, None)


def test_a_broker_has_one_name_whoever_logs_in_there() -> None:
    names = {name_of(f"amqp://{who}127.0.0.1/a") for who in ("", "one:x@", "two:y%40@")}
    assert len(names) == 1
    assert names.pop().startswith("rabbitmq-")
    assert name_of("nats://a:4222") != name_of("nats://b:4222")
