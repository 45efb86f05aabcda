"""Reads what the machine and the servers count: CPU of processes, SQL statements, Kafka messages, offset commits."""

import asyncio
import os
import re
import struct
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import asyncpg
import psutil
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from deployment import SERVICES, Deployment

_TICK = os.sysconf("SC_CLK_TCK")
QUIET_SECONDS = 30.0


# -- CPU -------------------------------------------------------------------------------------------------------------


def _ticks(pid: int, *, with_reaped: bool) -> int:
    """CPU of a process so far; with that of children which have ended, if they count."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    user, system, reaped_user, reaped_system = map(int, text.rpartition(")")[2].split()[11:15])
    return user + system + (reaped_user + reaped_system if with_reaped else 0)


def _family(pid: int) -> float:
    """CPU seconds of a process and all it started. Only grows: who ends is counted by its parent."""
    children = psutil.Process(pid).children(recursive=True)
    return sum(_ticks(p, with_reaped=True) for p in (pid, *(c.pid for c in children))) / _TICK


def _machine() -> float:
    """CPU seconds that all processes of the machine have used."""
    fields = [int(x) for x in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    user, nice, system, _idle, _iowait, irq, softirq, _steal = fields
    return (user + nice + system + irq + softirq) / _TICK


@dataclass
class Cpu:
    """CPU seconds used while measured: by each service, PostgreSQL, Kafka, this generator, and all others."""

    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def python(self) -> float:
        return sum(self.seconds[name] for name in SERVICES)

    @property
    def system(self) -> float:
        """Everything that an operator would have to pay: not the generator, not strangers."""
        return self.python + self.seconds["postgres"] + self.seconds["kafka"]


@contextmanager
def cpu(system: Deployment) -> Iterator[Cpu]:
    """Fills the yielded Cpu at the end of the block."""

    def read() -> dict[str, float]:
        now = {name: _family(pid) for name, pid in system.pids.items()}
        return now | {"generator": _ticks(os.getpid(), with_reaped=False) / _TICK, "machine": _machine()}

    before, used = read(), Cpu()
    yield used
    used.seconds = {name: after - before[name] for name, after in read().items()}
    machine = used.seconds.pop("machine")
    used.seconds["others"] = max(0.0, machine - sum(used.seconds.values()))


# -- SQL -------------------------------------------------------------------------------------------------------------

_STATEMENT = re.compile(r"^(\d+) ftgo_(\w+) LOG:  (?:statement|execute [^:]*): (\w+)")
_WRITES = {"INSERT", "UPDATE", "DELETE", "WITH"}


@dataclass
class Sql:
    """What the databases were asked, by service. ``commits``: transactions that ended, COMMIT or a single write."""

    statements: Counter[str] = field(default_factory=Counter)
    commits: Counter[str] = field(default_factory=Counter)

    def read(self, log: str) -> None:
        open_transactions: set[str] = set()
        for line in log.splitlines():
            if not (match := _STATEMENT.match(line)):
                continue
            backend, service, verb = match[1], match[2], match[3].upper()
            self.statements[service] += 1
            if verb == "BEGIN":
                open_transactions.add(backend)
            elif verb in {"COMMIT", "ROLLBACK"}:
                open_transactions.discard(backend)
                self.commits[service] += verb == "COMMIT"
            elif verb in _WRITES and backend not in open_transactions:
                self.commits[service] += 1


@asynccontextmanager
async def sql(system: Deployment) -> AsyncIterator[Sql]:
    """Counts every statement, from PostgreSQL's own log, which is switched on for the block. Slows it by a few percent:
    for counts, not for clocks."""
    connection = await asyncpg.connect(system.superuser_dsn)
    counted = Sql()
    try:
        await _set(connection, log_statement="all", log_line_prefix="%p %d ", log_parameter_max_length="0")
        start = system.postgres_log.stat().st_size
        yield counted
        with system.postgres_log.open("rb") as log:
            log.seek(start)
            counted.read(log.read().decode(errors="replace"))
    finally:
        await _set(connection, log_statement="none")
        await connection.close()


async def _set(connection: asyncpg.Connection, **settings: str) -> None:
    for name, value in settings.items():
        await connection.execute(f"ALTER SYSTEM SET {name} = '{value}'")
    await connection.execute("SELECT pg_reload_conf()")
    name, value = next(iter(settings.items()))
    async with asyncio.timeout(10):
        while await connection.fetchval(f"SHOW {name}") != value:  # noqa: ASYNC110 - the server rereads by itself
            await asyncio.sleep(0.01)


# -- Kafka -----------------------------------------------------------------------------------------------------------


@dataclass
class Kafka:
    """``messages`` by topic; ``offset_commits`` by consumer group: requests, of however many partitions."""

    messages: Counter[str] = field(default_factory=Counter)
    offset_commits: Counter[str] = field(default_factory=Counter)


@asynccontextmanager
async def kafka(system: Deployment) -> AsyncIterator[Kafka]:
    """Counts messages by the ends of the topics, and offset commits by reading what the groups wrote. The block has to
    leave a system at rest behind; what is still under way is waited for."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=system.bootstrap, enable_auto_commit=False, exclude_internal_topics=False
    )
    await consumer.start()
    counted = Kafka()
    try:
        partitions = await _partitions(system)
        before = await _at_rest(consumer, partitions)
        yield counted
        after = await _at_rest(consumer, partitions)
        for partition, end in after.items():
            if not partition.topic.startswith("__"):
                counted.messages[partition.topic] += end - before.get(partition, 0)
        counted.messages = +counted.messages
        counted.offset_commits = await _offset_commits(consumer, before, after)
    finally:
        await consumer.stop()


async def _partitions(system: Deployment) -> list[TopicPartition]:
    admin = AIOKafkaAdminClient(bootstrap_servers=system.bootstrap)
    await admin.start()
    try:
        topics = await admin.describe_topics(await admin.list_topics())
        return [TopicPartition(t["topic"], p["partition"]) for t in topics for p in t["partitions"]]
    finally:
        await admin.close()


async def _at_rest(consumer: AIOKafkaConsumer, partitions: list[TopicPartition]) -> dict[TopicPartition, int]:
    """The ends of all partitions, once they have not moved for half a second."""
    async with asyncio.timeout(QUIET_SECONDS):
        ends: dict[TopicPartition, int] = await consumer.end_offsets(partitions)
        while True:
            await asyncio.sleep(0.5)
            last, ends = ends, await consumer.end_offsets(partitions)
            if ends == last:
                return ends


async def _offset_commits(
    consumer: AIOKafkaConsumer, before: dict[TopicPartition, int], after: dict[TopicPartition, int]
) -> Counter[str]:
    """A request leaves one record per partition that it commits, all of one moment; a group asks one at a time."""
    written = {p: end for p, end in after.items() if p.topic == "__consumer_offsets" and end > before.get(p, 0)}
    if not written:
        return Counter()
    consumer.assign(list(written))
    for partition in written:
        consumer.seek(partition, before.get(partition, 0))
    requests: set[tuple[str, int]] = set()
    behind = set(written)
    async with asyncio.timeout(QUIET_SECONDS):
        while behind:
            for partition, records in (await consumer.getmany(timeout_ms=200)).items():
                requests.update((_group(r.key), r.timestamp) for r in records if _is_offset(r.key))
                if await consumer.position(partition) >= written[partition]:
                    behind.discard(partition)
    return Counter(group for group, _ in requests)


def _is_offset(key: bytes) -> bool:
    """Keys of version 0 and 1 are offsets of a group; others tell of its members."""
    version: int = struct.unpack_from(">h", key)[0]
    return version <= 1


def _group(key: bytes) -> str:
    (size,) = struct.unpack_from(">h", key, 2)
    return key[4 : 4 + size].decode()
