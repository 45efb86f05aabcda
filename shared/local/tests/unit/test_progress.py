import io
from pathlib import Path
from typing import Any

import pytest
from ftgo_local.console import plain, to_file
from ftgo_local.errors import PlatformError
from ftgo_local.progress import Event, Progress, journal, read_journal


def test_a_step_tells_its_end_and_what_it_added() -> None:
    events: list[Event] = []
    with Progress(events.append).step("Topics") as step:
        step.text = "12 topics"
    assert [(event.kind, event.step, event.text) for event in events] == [
        ("started", "Topics", ""),
        ("done", "Topics", "12 topics"),
    ]


def test_a_failed_step_shows_cause_cure_and_the_last_15_lines(tmp_path: Path) -> None:
    log = tmp_path / "kafka.log"
    log.write_text("".join(f"line {number}\n" for number in range(40)))
    out = io.StringIO()
    progress = Progress(plain(out))
    with pytest.raises(PlatformError) as caught, progress.step("Kafka"):
        raise PlatformError("Kafka ended at its start.", "Run `ftgo reset`.", log)
    text = out.getvalue()
    assert caught.value.told
    assert "Kafka: Kafka ended at its start." in text
    assert "line 24\n" not in text
    assert "line 25\n" in text
    assert "line 39\n" in text
    assert "What to do: Run `ftgo reset`." in text


def test_a_journal_is_followed_without_half_lines(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    journal(path)(Event("note", text="one"))
    events, position = read_journal(path, 0)
    assert [event.text for event in events] == ["one"]
    with path.open("a") as file:
        file.write('{"kind": "no')
        file.flush()
        assert read_journal(path, position) == ([], position)
        file.write('te", "text": "two"}\n')
    events, _ = read_journal(path, position)
    assert [event.text for event in events] == ["two"]


def test_a_line_of_which_a_full_disk_took_a_part_hides_no_other(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    write = journal(path)
    write(Event("note", text="one"))
    with path.open("a") as file:
        file.write('{"kind": "no\n')
    write(Event("note", text="two"))
    assert [event.text for event in read_journal(path, 0)[0]] == ["one", "two"]


def test_a_listener_that_cannot_write_stops_nothing(small_disk: Any) -> None:
    small_disk.fill()
    events: list[Event] = []
    progress = Progress(journal(small_disk.path / "journal.jsonl"), to_file(small_disk.path / "log"), events.append)
    progress.note("the disk is full")
    assert [event.text for event in events] == ["the disk is full"]
