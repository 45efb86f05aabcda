"""Files of the platform: for their owner only, replaced in one step, and told in a sentence when they are damaged."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from ftgo_local.errors import PlatformError

T = TypeVar("T")


def replace(path: Path, content: str, *, before: Callable[[Path], object] = lambda _: None) -> None:
    """Give the file this content, mode 0600, durable when this returns. ``before`` gets the new file while nobody sees
    it yet, to give it to another owner for one.

    A crash, a loss of power or a full disk leaves the old content or the new, whole. Raises OSError; the old content is
    still there then.
    """
    descriptor, new = tempfile.mkstemp(prefix=f"{path.name}.", suffix=".new", dir=path.parent)
    try:
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        before(Path(new))
        Path(new).replace(path)
    except BaseException:
        Path(new).unlink()
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def replace_if_different(path: Path, content: str) -> None:
    """As ``replace``, but what has this content already is not written: a full disk is no reason to fail then."""
    if not path.exists() or path.read_text(encoding="utf-8") != content:
        replace(path, content)


def read_json(path: Path, kind: type[T], cure: str) -> T | None:
    """The document as a value of that type; None when there is no file.

    Raises PlatformError with ``cure`` when it is no JSON, or not of that type.
    """
    try:
        return TypeAdapter(kind).validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError:
        raise PlatformError(f"{path} is damaged.", cure) from None
