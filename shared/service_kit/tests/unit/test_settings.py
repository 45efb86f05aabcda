"""Settings that would lose or repeat something end the start with a sentence."""

import pytest
from ftgo_service_kit.settings import ServiceSettings, read_settings
from pydantic_settings import SettingsConfigDict


class Settings(ServiceSettings):
    model_config = SettingsConfigDict(env_prefix="FTGO_ANY_", extra="ignore")


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FTGO_ANY_PORT", "1")
    monkeypatch.setenv("FTGO_ANY_DATABASE_URL", "postgresql://x")
    monkeypatch.setenv("FTGO_KAFKA_BOOTSTRAP", "x")


@pytest.mark.parametrize("what", ["PROCESSED_MESSAGES", "DEAD_LETTERS", "SAGAS"])
def test_what_was_done_is_remembered_for_longer_than_topics_keep_messages(
    what: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(f"FTGO_{what}_DAYS", "7")
    with pytest.raises(SystemExit) as end:
        read_settings(Settings)
    assert end.value.code == 2
    said = capsys.readouterr().err
    assert f"FTGO_{what}_DAYS" in said
    assert "7 days are not more than the 7 for which topics keep messages (FTGO_TOPIC_RETENTION_DAYS)" in said
    monkeypatch.setenv("FTGO_TOPIC_RETENTION_DAYS", "3")
    read_settings(Settings)


def test_the_defaults_are_longer_than_a_week() -> None:
    settings = read_settings(Settings)
    shortest = min(settings.processed_messages_days, settings.dead_letters_days, settings.sagas_days)
    assert shortest > settings.topic_retention_days == 7


def test_an_instance_is_named_for_a_service_or_for_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_settings(Settings).instance is None
    monkeypatch.setenv("FTGO_INSTANCE", "host-1")
    assert read_settings(Settings).instance == "host-1"
    monkeypatch.setenv("FTGO_ANY_INSTANCE", "any-1")
    assert read_settings(Settings).instance == "any-1"
