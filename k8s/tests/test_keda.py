"""KEDA's own Kafka scaler takes our triggers, and reads from our Kafka what they are meant to say."""

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from ftgo_local.kafka import Kafka
from ftgo_messaging.transports.kafka.topics import PARTITIONS, ensure_topics

Manifest = dict[str, Any]
Trigger = dict[str, str]
TOPIC = "kitchen.commands"


def triggers(manifests: list[Manifest]) -> list[Trigger]:
    found = []
    for scaled in (m for m in manifests if m["kind"] == "ScaledObject"):
        for trigger in scaled["spec"]["triggers"]:
            assert trigger["type"] == "kafka"
            found.append(trigger["metadata"])
    assert found
    return found


def of_group(production: list[Manifest], group: str) -> Trigger:
    (found,) = (t for t in triggers(production) if t["consumerGroup"] == group)
    return found


def folder() -> Path:
    """With KEDA's scaler, and its source."""
    if found := os.environ.get("FTGO_KEDA"):
        return Path(found)
    pytest.skip("KEDA's scaler is not here: `make k8s-check` compiles it")


def keda(asked: list[Trigger], *arguments: str) -> list[dict[str, Any]]:
    """What KEDA's scaler, compiled by k8s/check, makes of each."""
    command = [folder() / "kafka-scaler", *arguments]
    ran = subprocess.run(command, input=json.dumps(asked), capture_output=True, text=True, check=True, timeout=100)
    answers: list[dict[str, Any]] = json.loads(ran.stdout)
    assert len(answers) == len(asked)
    return answers


def test_keda_takes_every_trigger(production: list[Manifest]) -> None:
    assert [a.get("error") for a in keda(triggers(production))] == [None] * 6


@pytest.mark.parametrize(
    ("spoilt", "said"),
    [
        ({"offsetResetPolicy": "earlist"}, "offsetResetPolicy"),
        ({"lagThreshold": "1k"}, "lagThreshold"),
        ({"lagThreshold": "0"}, "must be positive"),
        ({"consumerGroup": ""}, "consumer group"),
        ({"bootstrapServers": ""}, "bootstrapServers"),
        ({"allowIdleConsumers": "never"}, "allowIdleConsumers"),
    ],
)
def test_keda_refuses_a_wrong_value(production: list[Manifest], spoilt: Trigger, said: str) -> None:
    (answer,) = keda([triggers(production)[0] | spoilt])
    assert said in answer["error"]


def test_keda_reads_every_name_in_the_triggers(production: list[Manifest]) -> None:
    """A name that it does not know it leaves out, and says nothing."""
    source = (folder() / "kafka_scaler.go").read_text()
    constants = dict(re.findall(r'(\w+)\s+= "(\w+)"', source))
    asked = re.findall(r'TriggerMetadata\[(?:"(\w+)"|(\w+))\]', source)
    known = {literal or constants[constant] for literal, constant in asked}
    for trigger in triggers(production):
        assert set(trigger) <= known
        # With it, more workers than partitions would be started, and idle.
        assert "allowIdleConsumers" not in trigger


async def test_keda_reads_the_lag_of_a_group_and_asks_for_no_more_workers_than_partitions(
    production: list[Manifest], kafka: Kafka
) -> None:
    await ensure_topics(kafka.bootstrap, [TOPIC])
    producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap)
    await producer.start()
    try:
        for n in range(36):
            await producer.send_and_wait(TOPIC, b"{}", partition=n % PARTITIONS)
    finally:
        await producer.stop()
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka.bootstrap, group_id="kitchen", enable_auto_commit=False)
    await consumer.start()
    try:
        # Two of three messages of one partition are done; from the others nothing was ever committed.
        consumer.assign([TopicPartition(TOPIC, 0)])
        await consumer.commit({TopicPartition(TOPIC, 0): 2})
    finally:
        await consumer.stop()

    trigger = of_group(production, "kitchen") | {"bootstrapServers": kafka.bootstrap}
    lag, capped, new = keda([trigger, trigger | {"lagThreshold": "1"}, trigger | {"consumerGroup": "new"}], "lag")
    assert lag == {"lag": 34, "active": True}
    assert capped == {"lag": PARTITIONS, "active": True}
    # It has no topics, and KEDA then counts all that there are, Kafka's own among them: maxReplicaCount is the bound.
    assert new["lag"] > 36
