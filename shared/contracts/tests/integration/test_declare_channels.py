"""The job that creates the topics, as a process of its own, before, while and after its Kafka is there."""

import asyncio
import os
import sys
from functools import partial

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from ftgo_contracts.channels import ALL_CHANNELS
from ftgo_local.kafka import Kafka
from ftgo_local.ports import free_port
from ftgo_messaging.testing.eventually import eventually


async def _job(bootstrap: str, **more: str) -> asyncio.subprocess.Process:
    environment = {**os.environ, "FTGO_KAFKA_BOOTSTRAP": bootstrap, **more}
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "ftgo_contracts.declare_channels"),
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def _ended(job: asyncio.subprocess.Process) -> tuple[int | None, str]:
    _, said = await job.communicate()
    return job.returncode, said.decode()


@pytest.mark.embedded("its address must be known before it starts")
async def test_it_waits_for_a_kafka_that_starts_later(kafka: Kafka) -> None:
    await asyncio.to_thread(kafka.stop)
    job = await _job(kafka.bootstrap)
    try:
        assert job.stderr
        first = (await job.stderr.readline()).decode()
        assert first == f"Waiting for Kafka at {kafka.bootstrap} (0 of 120 s): connection refused\n"
    finally:
        await kafka.start()
    code, said = await _ended(job)
    assert code == 0, said
    assert "Traceback" not in said
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    await admin.start()
    assert {c.name for c in ALL_CHANNELS} <= set(await admin.list_topics())
    await admin.close()


@pytest.mark.parametrize(
    ("host", "why"), [("127.0.0.1", "connection refused"), ("no-such-host.invalid", "unknown host (")]
)
async def test_a_kafka_that_never_comes_is_told_in_a_sentence(host: str, why: str) -> None:
    code, said = await _ended(await _job(f"{host}:{free_port()}", FTGO_WAIT_SECONDS="1"))
    assert code == 1
    last = said.splitlines()[-1]
    assert f"was not there within 1 s: {why}" in last
    assert "FTGO_KAFKA_BOOTSTRAP" in last
    assert "Traceback" not in said


async def test_a_server_that_takes_connections_and_is_no_kafka_is_told() -> None:
    async def close(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with await asyncio.start_server(close, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        code, said = await _ended(await _job(f"127.0.0.1:{port}", FTGO_WAIT_SECONDS="1"))
    assert code == 1
    assert f"Kafka at 127.0.0.1:{port} was not there within 1 s: " in said.splitlines()[-1]
    assert "Traceback" not in said


async def test_a_topic_with_other_partitions_is_told_at_once(kafka: Kafka) -> None:
    """Waiting does not mend it."""
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    await admin.start()
    name = ALL_CHANNELS[0].name
    try:
        await admin.delete_topics([name])
        await eventually(partial(_made_anew, admin, name), within=30)
        code, said = await _ended(await _job(kafka.bootstrap))
        assert (code, said.count("\n")) == (1, 1), said
        assert f"topic {name} has 1 partitions, declared are 12" in said
    finally:
        await admin.delete_topics([name])
        await admin.close()


async def _made_anew(admin: AIOKafkaAdminClient, name: str) -> None:
    """A topic is deleted some time after the broker has agreed to it."""
    made = await admin.create_topics([NewTopic(name, num_partitions=1, replication_factor=1)])
    assert [error[1] for error in made.topic_errors] == [0]


async def test_a_wrong_setting_is_told() -> None:
    code, said = await _ended(await _job("127.0.0.1:1", FTGO_WAIT_SECONDS="soon"))
    assert (code, said) == (2, "FTGO_WAIT_SECONDS: a number of seconds from 0, not 'soon'\n")
