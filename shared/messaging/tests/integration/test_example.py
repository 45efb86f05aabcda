"""The examples run: that of the README says what the README says, and each style of interaction has one."""

import runpy
from pathlib import Path

import pytest
from ftgo_local.kafka import Kafka
from ftgo_local.postgres import Postgres

PACKAGE = Path(__file__).parents[2]


ANSWERS = {
    "notification": ["ann: Your parcel is here."],
    "publish_subscribe": ["billing: Oakland", "statistics: Oakland"],
    "publish_replies": ["COMPLETE, 2 offers: van for 100", "TIMED_OUT, 1 offers: lorry for 280"],
    "documents": ["soap: 199", "soap: 249"],
}


@pytest.mark.parametrize("name", ANSWERS)
async def test_each_style_has_an_example_that_runs(name: str, postgres: Postgres, kafka: Kafka) -> None:
    dsn = (await postgres.create_service_databases([name]))[name]
    example = runpy.run_path(str(PACKAGE / "docs" / f"{name}.py"))
    assert await example["main"](dsn, f"kafka://{kafka.bootstrap}") == ANSWERS[name]


async def test_the_example_pays_once(postgres: Postgres, kafka: Kafka) -> None:
    dsn = (await postgres.create_service_databases(["example"]))["example"]
    example = runpy.run_path(str(PACKAGE / "docs" / "example.py"))
    assert await example["main"](dsn, f"kafka://{kafka.bootstrap}") == ["paid", "NOT_ENOUGH"]


def test_the_readme_shows_the_example() -> None:
    """Every line of the README's code stands in the program that the tests run."""
    readme = (PACKAGE / "README.md").read_text().split("```python\n")[1].split("```")[0]
    program = " ".join((PACKAGE / "docs" / "example.py").read_text().split()).replace("  ", " ")
    for line in readme.splitlines():
        code = line.split("  #")[0].strip()
        if code and not code.startswith("consumer ="):
            assert code in program, code
