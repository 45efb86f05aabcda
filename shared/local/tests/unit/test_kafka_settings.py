"""Kafka's server.properties: ours, and what a test stand puts over them."""

from pathlib import Path

from ftgo_local.kafka import Kafka


def test_extra_settings_replace_ours_and_add_to_them(tmp_path: Path) -> None:
    kafka = Kafka(tmp_path, 19092, 19093)
    kafka.extra_settings = {"num.io.threads": "2", "inter.broker.listener.name": "PLAINTEXT"}
    lines = kafka._configure().read_text().splitlines()
    assert [line for line in lines if line.startswith("num.io.threads=")] == ["num.io.threads=2"]
    assert "inter.broker.listener.name=PLAINTEXT" in lines
    assert "auto.create.topics.enable=false" in lines
