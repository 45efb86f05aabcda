"""Which broker a start uses, and what a change of it says."""

from pathlib import Path

import pytest
from ftgo_local.broker_choice import Choice, changed, choose, remember, remembered
from ftgo_local.errors import PlatformError
from ftgo_local.state import StateDirectory

URL = "amqp://user:secret@broker.example:5672/orders?lanes=4"


@pytest.fixture
def directory(tmp_path: Path) -> StateDirectory:
    return StateDirectory(tmp_path)


def test_kafka_the_first_time_and_then_that_of_the_last_start(directory: StateDirectory) -> None:
    assert choose(None, directory, {}) == Choice("kafka")
    assert choose("nats", directory, {}) == Choice("nats")
    remember(Choice("nats"), directory)
    assert choose(None, directory, {}) == Choice("nats")
    assert choose("valkey", directory, {}) == Choice("valkey")


def test_an_address_names_the_broker_and_none_is_started(directory: StateDirectory) -> None:
    choice = choose(None, directory, {"FTGO_BROKER_URL": URL})
    assert (choice.name, choice.own, choice.url) == ("rabbitmq", None, URL)
    assert choose("rabbitmq", directory, {"FTGO_BROKER_URL": URL}) == choice
    assert "secret" not in str(choice)


def test_the_address_of_a_registry_has_no_host(directory: StateDirectory) -> None:
    url = "http+static:///etc/ftgo/registry.json"
    assert choose(None, directory, {"FTGO_BROKER_URL": url}) == Choice("direct", url)


def test_a_remembered_address_is_no_choice_for_a_start_without_one(directory: StateDirectory) -> None:
    remember(Choice("rabbitmq", URL), directory)
    assert choose(None, directory, {}) == Choice("kafka")
    assert "secret" not in directory.broker.read_text()


@pytest.mark.parametrize(
    ("url", "asked", "said"),
    [
        (URL, "nats", "an address of RabbitMQ, and --broker asks for NATS"),
        ("127.0.0.1:9092", None, "no address of a broker.*kafka://"),
        ("kafka:", None, "no address of a broker"),
        ("kafka:///registry.json", None, "no address of a broker"),
        ("http+static:", None, "no address of a broker"),
    ],
)
def test_what_does_not_fit_is_a_sentence(directory: StateDirectory, url: str, asked: str | None, said: str) -> None:
    with pytest.raises(PlatformError, match=said):
        choose(asked, directory, {"FTGO_BROKER_URL": url})


def test_a_change_tells_what_becomes_of_the_messages_and_how_to_drain(directory: StateDirectory) -> None:
    assert changed(Choice("nats"), directory) == ""  # nothing is there that could be left behind
    remember(Choice("kafka"), directory)
    assert changed(Choice("kafka"), directory) == ""
    told = changed(Choice("nats"), directory)
    assert "was Kafka and is NATS now" in told
    assert "goes to NATS, in order" in told
    assert "`ftgo up --broker kafka`" in told


def test_without_a_broker_nothing_is_left_behind(directory: StateDirectory) -> None:
    remember(Choice("direct"), directory)
    assert choose(None, directory, {}) == Choice("direct")
    told = changed(Choice("kafka"), directory)
    assert "was direct HTTP and is Kafka now" in told
    assert "Nothing is left behind." in told
    assert "stays there" not in told


def test_from_and_to_a_broker_elsewhere_too(directory: StateDirectory) -> None:
    remember(Choice("rabbitmq", URL), directory)
    assert changed(Choice("rabbitmq", URL), directory) == ""
    assert changed(Choice("rabbitmq", URL.replace("secret", "another")), directory) == ""
    told = changed(Choice("rabbitmq"), directory)
    assert "`FTGO_BROKER_URL=amqp://broker.example:5672/orders ftgo up`" in told
    assert "secret" not in told


def test_a_copy_from_before_there_was_a_choice_has_run_on_kafka(directory: StateDirectory, tmp_path: Path) -> None:
    (tmp_path / "kafka").mkdir()
    assert remembered(directory) == Choice("kafka")
    assert "was Kafka" in changed(Choice("valkey"), directory)


def test_a_damaged_memory_is_a_sentence(directory: StateDirectory) -> None:
    directory.broker.write_text("{")
    with pytest.raises(PlatformError, match=r"broker\.json is damaged.*Delete it"):
        choose(None, directory, {})


def test_a_move_that_is_under_way_goes_on_and_nothing_else_is_chosen(directory: StateDirectory) -> None:
    under_way = Choice("nats", leaves="kafka")
    remember(under_way, directory)
    assert choose(None, directory, {}) == choose("nats", directory, {}) == under_way
    assert "goes on" in changed(under_way, directory)
    for asked, environment in (("kafka", {}), ("valkey", {}), (None, {"FTGO_BROKER_URL": URL})):
        with pytest.raises(PlatformError, match=r"from Kafka to NATS is under way.*`ftgo up --broker nats`"):
            choose(asked, directory, environment)
