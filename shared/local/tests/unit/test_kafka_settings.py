"""Kafka's server.properties: ours, and what a test stand puts over them."""

from pathlib import Path

import pytest
from ftgo_local.kafka import PROPERTIES, Kafka


def test_extra_settings_replace_ours_and_add_to_them(tmp_path: Path) -> None:
    kafka = Kafka(tmp_path, 19092, 19093)
    kafka.extra_settings = {"num.io.threads": "2", "inter.broker.listener.name": "PLAINTEXT"}
    kafka._configure()
    lines = (kafka.directory.resolve() / PROPERTIES).read_text().splitlines()
    assert [line for line in lines if line.startswith("num.io.threads=")] == ["num.io.threads=2"]
    assert "inter.broker.listener.name=PLAINTEXT" in lines
    assert "auto.create.topics.enable=false" in lines


@pytest.mark.parametrize("name", ["jörg", "a,b", "back\\slash", "100%", "#1", "a=b", "it's", "two  blanks", "$HOME"])
def test_no_setting_names_a_folder_whose_letters_have_a_meaning(tmp_path: Path, name: str) -> None:
    kafka = Kafka(tmp_path / name / "kafka", 19092, 19093)
    kafka._configure()
    settings = (kafka.directory.resolve() / PROPERTIES).read_text(encoding="ascii")
    assert "log.dirs=data\n" in settings
    assert name not in settings
    assert name not in " ".join(kafka._java("kafka.Kafka", PROPERTIES))


def test_what_is_the_same_is_not_written_at_the_next_start(tmp_path: Path) -> None:
    kafka = Kafka(tmp_path, 19092, 19093)
    kafka._configure()
    before = (kafka.directory.resolve() / PROPERTIES).stat()
    kafka._configure()
    after = (kafka.directory.resolve() / PROPERTIES).stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
