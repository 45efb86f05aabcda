"""Triggers on the outbox, made by the harness: commits that take long, and commands that get lost."""

from typing import ClassVar

import asyncpg


class _Trigger:
    name: ClassVar[str]
    body: ClassVar[str]
    services: ClassVar[tuple[str, ...]] = ("order", "consumer", "kitchen", "accounting")

    def __init__(self, dsns: dict[str, str]) -> None:
        self._dsns = [dsns[service] for service in self.services]
        self._function = f"chaos_{self.name.replace('-', '_')}"

    async def install(self) -> None:
        await self._execute(
            f"CREATE FUNCTION {self._function}() RETURNS trigger LANGUAGE plpgsql AS "
            f"$$ BEGIN {self.body} RETURN NULL; END $$",
            f"CREATE TRIGGER {self._function} AFTER INSERT ON outbox FOR EACH ROW EXECUTE FUNCTION {self._function}()",
        )

    async def remove(self) -> None:
        await self._execute(f"DROP FUNCTION IF EXISTS {self._function} CASCADE")

    async def _execute(self, *statements: str) -> None:
        for dsn in self._dsns:
            connection = await asyncpg.connect(dsn, timeout=10)
            try:
                for statement in statements:
                    await connection.execute(statement)
            finally:
                await connection.close()


class SlowCommits(_Trigger):
    """Some transactions hold their outbox positions for a while before they commit; others overtake them."""

    name = "slow"
    body = "IF random() < 0.1 THEN PERFORM pg_sleep(0.1 + random() * 0.3); END IF;"


class LostCommands(_Trigger):
    """Some commands of the sagas vanish with the transaction that wrote them, as if a broker had lost them. Only the
    polling publisher loses them that way; the log still has them."""

    name = "lost-commands"
    services = ("order",)
    body = (
        "IF NEW.channel IN ('kitchen.commands', 'accounting.commands') AND random() < 0.05 THEN "
        "DELETE FROM outbox WHERE position = NEW.position; END IF;"
    )
