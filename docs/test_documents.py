"""What the documents name is there: tests by their names, files by their links."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
IGNORED = {".venv", ".ftgo", "node_modules", ".git"}
DOCUMENTS = [p for p in ROOT.rglob("*.md") if not IGNORED & set(p.relative_to(ROOT).parts)]


@pytest.fixture(scope="module")
def tests() -> set[str]:
    suite = ROOT / "shared/messaging/src/ftgo_messaging/testing/suite"  # ships with the library
    files = [p for p in ROOT.rglob("test_*.py") if not IGNORED & set(p.relative_to(ROOT).parts)]
    code = "\n".join(p.read_text() for p in [*files, *suite.glob("*.py")])
    return set(re.findall(r"def (test_\w+)", code))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_document_names_tests_that_exist(document: Path, tests: set[str]) -> None:
    named = set(re.findall(r"`(test_\w+)`", document.read_text()))
    assert named <= tests, f"no such tests: {sorted(named - tests)}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_document_links_to_files_that_exist(document: Path) -> None:
    links = re.findall(r"\]\((?!https?:|#)([^)#\s]+)", document.read_text())
    missing = [link for link in links if not (document.parent / link).exists()]
    assert not missing


def test_a_document_names_targets_of_the_makefile() -> None:
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for document in DOCUMENTS:
        named = set(re.findall(r"`make ([a-z0-9-]+)", document.read_text()))
        assert named <= targets, f"{document.name}: no such targets: {sorted(named - targets)}"


def test_no_file_names_a_registry_or_a_machine() -> None:
    found = subprocess.run(
        [
            "git",
            "grep",
            "-nIE",
            r"(^|[^A-Za-z0-9_.])/(work|root)/|pypi\.org|files\.pythonhosted|registry\.npmjs",
            "--",
            ".",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    # The standard's own words, and this test.
    assert not [line for line in found.splitlines() if not line.startswith("docs/test_documents.py")], found
