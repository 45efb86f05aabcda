"""The example of the README runs, and says what the README says."""

import runpy
from pathlib import Path

from ftgo_local.kafka import Kafka
from ftgo_local.postgres import Postgres

PACKAGE = Path(__file__).parents[2]


async def test_the_example_pays_once(postgres: Postgres, kafka: Kafka) -> None:
    dsn = (await postgres.create_service_databases(["example"]))["example"]
    example = runpy.run_path(str(PACKAGE / "docs" / "example.py"))
    assert await example["main"](dsn, kafka.bootstrap) == ["paid", "NOT_ENOUGH"]


def test_the_readme_shows_the_example() -> None:
    """Every line of the README's code stands in the program that the tests run."""
    readme = (PACKAGE / "README.md").read_text().split("```python\n")[1].split("```")[0]
    program = " ".join((PACKAGE / "docs" / "example.py").read_text().split()).replace("  ", " ")
    for line in readme.splitlines():
        code = line.split("  #")[0].strip()
        if code and not code.startswith("consumer ="):
            assert code in program, code
