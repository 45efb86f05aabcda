"""What is in docs/ is what the code says: after a change, `make docs`."""

from generate import generated


def test_the_generated_documents_are_up_to_date() -> None:
    for path, text in generated().items():
        assert path.read_text() == text, f"{path.name} is not what the code says: run `make docs`"
