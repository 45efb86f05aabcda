"""The library as its README draws it."""

import re
from pathlib import Path

LIBRARY = Path(__file__).parents[2] / "src/ftgo_messaging"
README = (Path(__file__).parents[2] / "README.md").read_text()


def test_the_readme_names_every_room_and_no_other() -> None:
    rooms = {path.parent.name for path in LIBRARY.glob("*/__init__.py")}
    table = README[README.index("| room | idea |") : README.index("### The way of one message")]
    assert set(re.findall(r"`(\w+)/`", table)) == rooms
    assert len(rooms) <= 10
    assert [path.name for path in LIBRARY.glob("*.py")] == ["__init__.py"]


def test_the_way_of_one_message_names_files_that_exist_in_ten_lines() -> None:
    way = README[README.index("### The way of one message") :]
    way = way[: way.index("\n## ")]
    steps = re.findall(r"^\d+\. (.+)$", way, re.MULTILINE)
    assert len(steps) == 10
    for step in steps:
        files = re.findall(r"`(\w+/\w+\.py)`", step)
        assert files, step
        assert [file for file in files if not (LIBRARY / file).exists()] == []


def test_no_module_is_larger_than_twelve_kilobytes() -> None:
    sizes = {str(path.relative_to(LIBRARY)): path.stat().st_size for path in LIBRARY.rglob("*.py")}
    assert {name: size for name, size in sizes.items() if size > 12 * 1024} == {}
