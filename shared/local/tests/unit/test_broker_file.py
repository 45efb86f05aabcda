"""The file that running services follow."""

import json
from pathlib import Path

import pytest
from ftgo_local.broker_file import place, write
from ftgo_local.following import reason
from ftgo_local.state import StateDirectory
from ftgo_local.unread import told

KAFKA, NATS = "kafka://127.0.0.1:1", "nats://127.0.0.1:2"
LATER = 9_000_000_000_000
"""In the year 2255: the clock has been set back since."""


@pytest.fixture
def directory(tmp_path: Path) -> StateDirectory:
    return StateDirectory(tmp_path)


def test_it_says_where_to_send_and_what_to_read_as_well(directory: StateDirectory) -> None:
    generation = write(directory, NATS, [KAFKA]).generation
    found = json.loads(place(directory).read_text())
    assert found == {"generation": generation, "send": NATS, "read": [KAFKA]}
    assert place(directory).stat().st_mode & 0o777 == 0o600


def test_a_generation_only_grows_whatever_the_clock_says(directory: StateDirectory) -> None:
    write(directory, KAFKA)
    place(directory).write_text(json.dumps({"generation": LATER, "send": KAFKA, "read": []}))
    assert write(directory, KAFKA).generation == LATER  # a start that changes nothing
    assert write(directory, NATS, [KAFKA]).generation == LATER + 1
    assert write(directory, NATS).generation == LATER + 2


def test_a_damaged_file_is_written_anew(directory: StateDirectory) -> None:
    write(directory, KAFKA)
    place(directory).write_text("{")
    assert write(directory, KAFKA).send == KAFKA


def test_the_folder_may_have_been_cleaned_away(directory: StateDirectory, tmp_path: Path) -> None:
    (tmp_path / "addresses").symlink_to(tmp_path / "gone")
    assert write(directory, KAFKA).send == KAFKA


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ({"generation": 7, "unmoved": 0}, ""),
        ({"generation": 8, "unmoved": None}, ""),
        ({"generation": 6, "unmoved": 0}, "not followed yet"),
        ({"generation": 7, "unmoved": 3}, "3 lanes wait until Kafka is read"),
    ],
)
def test_what_a_service_says_of_the_broker(answer: dict[str, int | None], said: str) -> None:
    assert reason({"ready": True, "broker": answer}, 7, "Kafka") == said


def test_what_a_service_may_fail_to_say() -> None:
    assert reason("no answer", 7, "Kafka") == "no answer"
    assert "not said" in reason({"ready": True}, 7, "Kafka")


def test_what_is_unread_is_told_with_the_fullest_lanes(directory: StateDirectory) -> None:
    assert told("Kafka", {"a/0": 0, "a/1": 0}) == ""
    counts: dict[str, int | None] = {"a/0": 1, "a/1": 5, "a/2": 2, "a/3": 3, "a/4": 0}
    assert told("Kafka", counts) == "Kafka: 11 unread in 4 lanes (a/1: 5, a/3: 3, a/2: 2, ...)"
    assert told("Kafka", {"a/0": None, "a/1": 0}) == "Kafka: 1 lanes of which it is not known (a/0)"
