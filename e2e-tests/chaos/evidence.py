"""What a run left behind, read into memory. Nothing here, and nothing that the checker uses, comes from the system."""

import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

Row = dict[str, Any]


@dataclass(frozen=True)
class Commit:
    """One transaction of a service's database. ``number`` counts them in commit order; ``lsn`` orders those of all
    databases, which share one server and one log."""

    service: str
    number: int
    lsn: int
    at: float
    changes: list[tuple[str, str, Row]]  # operation, table, row

    def rows(self, table: str, *operations: str) -> Iterator[Row]:
        for operation, name, row in self.changes:
            if name == table and (not operations or operation in operations):
                yield row


@dataclass(frozen=True)
class Sent:
    """An outbox row that was committed: a message as its sender meant it."""

    service: str
    commit: int
    lsn: int
    id: str
    channel: str
    key: str
    headers: dict[str, str]
    body: dict[str, Any]

    @property
    def type(self) -> str:
        return self.headers.get("type", "")

    @property
    def saga(self) -> str | None:
        return self.headers.get("sagaid")

    @property
    def cause(self) -> str | None:
        return self.headers.get("causationid")

    @property
    def answers(self) -> str | None:
        return self.headers.get("inreplyto")

    def brief(self) -> Row:
        """The little that a counter-example shows."""
        shown = {"sent by": self.service, "commit": self.commit, "id": self.id, "type": self.type, "key": self.key}
        return (
            shown | ({"answers": self.answers} if self.answers else {}) | ({"cause": self.cause} if self.cause else {})
        )


@dataclass(frozen=True)
class Record:
    """A record of a topic."""

    topic: str
    partition: int
    offset: int
    key: str | None
    headers: dict[str, str]
    body: str | None

    @property
    def id(self) -> str:
        return self.headers.get("id", "")

    def brief(self) -> Row:
        where = f"{self.topic}/{self.partition}@{self.offset}"
        return {"record": where, "id": self.id, "type": self.headers.get("type"), "key": self.key}


@dataclass
class Evidence:
    """All files of one run. ``tables`` are the rows at the end: service -> table -> rows."""

    run: Row = field(default_factory=dict)
    end: Row = field(default_factory=dict)
    history: list[Row] = field(default_factory=list)
    nemesis: list[Row] = field(default_factory=list)
    commits: dict[str, list[Commit]] = field(default_factory=dict)
    records: list[Record] = field(default_factory=list)
    tables: dict[str, dict[str, list[Row]]] = field(default_factory=dict)

    def rows(self, service: str, table: str) -> list[Row]:
        return self.tables.get(service, {}).get(table, [])

    def written(self, service: str, table: str, *operations: str) -> Iterator[tuple[Commit, Row]]:
        """Every committed write to a table, in commit order."""
        for commit in self.commits.get(service, []):
            for row in commit.rows(table, *operations):
                yield commit, row

    @property
    def subscriptions(self) -> list[Row]:
        return self.run.get("subscriptions", [])  # type: ignore[no-any-return]

    @cached_property
    def sent(self) -> list[Sent]:
        """All outbox rows ever committed, by service, in commit order and within a commit by position."""
        found = []
        for service in self.commits:
            for commit in self.commits[service]:
                for row in sorted(commit.rows("outbox", "insert"), key=lambda r: int(r["position"])):
                    found.append(
                        Sent(
                            service,
                            commit.number,
                            commit.lsn,
                            row["message_id"],
                            row["channel"],
                            row["key"],
                            json.loads(row["headers"]),
                            _json(bytes.fromhex(row["body"].removeprefix("\\x")).decode(errors="replace")),
                        )
                    )
        return found

    @cached_property
    def sent_by_id(self) -> dict[str, Sent]:
        """The first committed row of each message id."""
        found: dict[str, Sent] = {}
        for message in self.sent:
            found.setdefault(message.id, message)
        return found

    @cached_property
    def records_by_id(self) -> dict[str, list[Record]]:
        found: dict[str, list[Record]] = defaultdict(list)
        for record in self.records:
            found[record.id].append(record)
        return found

    @cached_property
    def forged(self) -> set[str]:
        """Ids that the nemesis has invented."""
        return {e["id"] for e in self.nemesis if e.get("fault") in {"late-replies", "poison"} and "id" in e}

    @cached_property
    def poison(self) -> set[str]:
        return {e["id"] for e in self.nemesis if e.get("fault") == "poison" and "id" in e}


def _json(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _lines(path: Path) -> Iterator[Row]:
    if not path.exists():
        return
    with path.open() as file:
        for line in file:
            if line.endswith("\n"):  # else the harness was killed in the middle of it
                yield json.loads(line)


def load(directory: Path) -> Evidence:
    """Read a run directory. Files that are missing are empty."""

    def document(name: str) -> Row:
        path = directory / name
        return json.loads(path.read_text()) if path.exists() else {}

    evidence = Evidence(document("run.json"), document("end.json"))
    evidence.history = list(_lines(directory / "history.jsonl"))
    evidence.nemesis = list(_lines(directory / "nemesis.jsonl"))
    for path in sorted(directory.glob("commits-*.jsonl")):
        service = path.stem.removeprefix("commits-")
        evidence.commits[service] = [
            Commit(service, number, line["lsn"], line["at"], [tuple(c) for c in line["changes"]])  # type: ignore[misc]
            for number, line in enumerate(_lines(path))
        ]
    for line in _lines(directory / "topics.jsonl"):
        evidence.records.append(
            Record(line["topic"], line["partition"], line["offset"], line["key"], line["headers"], line["body"])
        )
    for path in directory.glob("tables-*.jsonl"):
        tables: dict[str, list[Row]] = defaultdict(list)
        for line in _lines(path):
            tables[line["table"]].append(line["row"])
        evidence.tables[path.stem.removeprefix("tables-")] = tables
    return evidence
