"""Running as somebody else than root, without being told by the user how.

Started as root, PostgreSQL, Kafka and the services run as the system user ``ftgo``, who is made when there is none.
Things may then be out of reach, because a folder above them is closed (a checkout under /root is, and its Maven cache):
programs and jars are copied, data directories are placed in the temporary folder and linked from where they should be.
Services, whose code and Python would be too much to copy, go on as root then, and the supervisor says so.
"""

import os
import pwd
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from ftgo_local.errors import PlatformError

USER = "ftgo"
_USERADD = (
    *("useradd", "--system", "--user-group", "--no-create-home", "--home-dir", "/nonexistent"),
    *("--shell", "/usr/sbin/nologin", USER),
)


def make_user() -> bool:
    """Make the system user that replaces root, unless it is there or nobody is root. True when it was made.

    Raises PlatformError when it cannot be made.
    """
    if os.geteuid() != 0 or user_exists():
        return False
    try:
        done = subprocess.run(_USERADD, check=False, capture_output=True, text=True)  # noqa: S603
        reason = done.stderr.strip()
    except OSError as error:
        reason = str(error)
    if not user_exists():  # another start may have made it at the same time
        raise PlatformError(
            f"Started by root, ftgo runs nothing as root, but cannot make the user {USER}: {reason}.",
            f"Run it as an ordinary user, or make that one: `{' '.join(_USERADD)}`.",
        )
    return True


def user_exists() -> bool:
    try:
        return pwd.getpwnam(USER).pw_uid != 0
    except KeyError:
        return False


def drop_privileges() -> dict[str, Any]:
    """Arguments for subprocess that drop root's privileges; none when there are none to drop. Raises PlatformError."""
    if os.geteuid() != 0:
        return {}
    make_user()
    user = pwd.getpwnam(USER)
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


def service_user() -> dict[str, Any]:
    """As ``drop_privileges``; but none when that user cannot reach this Python, or our code, and root has to do."""
    return drop_privileges() if services_reachable(sys.executable) else {}


def services_as_root() -> str:
    """Why the services run as root, in sentences; empty when they do not."""
    if os.geteuid() != 0 or service_user():
        return ""
    return (
        f"The services run as root: the user {USER} cannot use {sys.executable} and our code. A checkout and a Python "
        "outside of closed folders (/root is one) mend that, and so does starting as an ordinary user."
    )


@cache
def services_reachable(python: str) -> bool:
    """Whether the unprivileged user can run that Python and import this package: tried, not computed."""
    user = drop_privileges()
    try:
        done = subprocess.run([python, "-c", "import ftgo_local"], check=False, capture_output=True, cwd="/", **user)  # noqa: S603
    except PermissionError:
        return False
    return done.returncode == 0


def _can(test: str, path: Path, user: dict[str, Any]) -> bool:
    """Whether that user passes ``test -x`` or ``test -w`` on the path: asked, not computed from modes and ACLs."""
    return subprocess.run(["/usr/bin/env", "test", test, str(path)], check=False, cwd="/", **user).returncode == 0  # noqa: S603


def hand_over(*files: Path) -> None:
    """Make the unprivileged user own these, if there is one."""
    if user := drop_privileges():
        for file in files:
            os.chown(file, user["user"], user["group"], follow_symlinks=False)


def reachable_programs(root: Path, trees: Sequence[str], program: str, *, copy: bool = False) -> Path:
    """A folder with these trees below it, where the program can be run: ``root``, or a copy of them, made once in the
    temporary folder. Programs find their libraries by the way from tree to tree.

    ``copy`` asks for a copy in any case: some programs cannot live below every folder.
    """
    user = drop_privileges()
    if not copy and (not user or _can("-x", root / program, user)):
        return root

    def fill(target: Path) -> None:
        for tree in trees:
            if (root / tree).exists():
                shutil.copytree(root / tree, target / tree, symlinks=True)

    stamp = int((root / program).stat().st_mtime)
    return _copied(f"programs-{Path(program).name}-{stamp}", fill)


def reachable_files(files: Sequence[Path], name: str) -> list[Path]:
    """These files, or copies of them (once, in the temporary folder, under that name) that can be read."""
    user = drop_privileges()
    if not user or all(_can("-r", file, user) for file in {file.parent: file for file in files}.values()):
        return list(files)

    def fill(target: Path) -> None:
        for file in files:
            shutil.copy(file, target)

    folder = _copied(name, fill)
    return [folder / file.name for file in files]


def _copied(name: str, fill: Callable[[Path], object]) -> Path:
    place = Path(tempfile.gettempdir()) / f"ftgo-{name}"
    if place.exists() and place.stat().st_uid != os.geteuid():
        raise PlatformError(f"{place} belongs to somebody else.", "Remove it, or set TMPDIR to a folder of your own.")
    if not place.exists():
        unfinished = Path(tempfile.mkdtemp(prefix=f"{place.name}-", dir=place.parent))
        try:
            fill(unfinished)
            for path in (unfinished, *unfinished.rglob("*")):
                if not path.is_symlink():  # whatever our umask, or the one they were installed with
                    theirs = stat.S_IMODE(path.stat().st_mode) & 0o500
                    path.chmod(theirs | theirs >> 3 | theirs >> 6 | stat.S_IWUSR)
            unfinished.rename(place)
        except OSError:
            shutil.rmtree(unfinished)
            if not place.exists():  # another start was faster
                raise
    if (user := drop_privileges()) and not _can("-x", place, user):
        raise PlatformError(
            f"The user {USER} cannot enter {place.parent}.", "Set TMPDIR to a folder that it can enter."
        )
    return place


def private_directory(path: Path) -> None:
    """Make the folder, and those above it that are missing: for us only, but that the unprivileged user passes through.

    A folder that is there keeps its modes, but for that passage.
    """
    missing = [p for p in (path, *path.parents) if not p.exists()]
    for folder in reversed(missing):
        folder.mkdir(mode=0o700, exist_ok=True)
    user = drop_privileges()
    for folder in reversed(missing or [path]):
        found = folder.stat()
        if user and found.st_uid == os.geteuid() and not _can("-x", folder, user):
            os.chown(folder, -1, user["group"])
            folder.chmod(stat.S_IMODE(found.st_mode) | stat.S_IXGRP)


def owned_directory(wanted: Path) -> Path:
    """A folder, 0700, that the user of the servers owns and reaches: ``wanted``, or a temporary one linked from there.

    Raises PlatformError when a link from an earlier start leads nowhere: the system has cleaned its temporary folder.
    """
    user = drop_privileges()
    if wanted.is_symlink() and not wanted.exists():
        raise PlatformError(
            f"The data of {wanted} were in {wanted.readlink()}, which is gone: the system cleans that folder.",
            "Run `ftgo reset` to begin anew; set FTGO_STATE_DIR to a folder that others can enter to keep the data.",
        )
    private_directory(wanted.parent)
    wanted.mkdir(exist_ok=True)
    if not user:
        if wanted.stat().st_uid != os.geteuid():
            raise PlatformError(
                f"{wanted} was made by another user, root perhaps.", "Run ftgo as that user, or set FTGO_STATE_DIR."
            )
        wanted.chmod(0o700)
        return wanted
    if not wanted.is_symlink():
        _give_away(wanted, user)
        if _can("-w", wanted, user):
            return wanted
        # Somewhere above is a closed folder. Opening other people's folders is not ours to do.
        place = tempfile.mkdtemp(prefix="ftgo-")
        for entry in wanted.iterdir():
            shutil.move(entry, place)
        wanted.rmdir()
        wanted.symlink_to(place)
    target = wanted.resolve()
    _give_away(target, user)
    if not _can("-w", target, user):
        raise PlatformError(
            f"The user {USER} can reach neither {wanted.parent} nor {target.parent}.",
            "Set FTGO_STATE_DIR to a folder that it can enter.",
        )
    return target


def placed_elsewhere(directory: Path) -> str:
    """Where ``owned_directory`` has placed it, as a sentence; empty when it is where it was wanted."""
    if not directory.is_symlink():
        return ""
    return f"The user {USER} cannot enter {directory.parent}: its data are in {directory.resolve()}."


def _give_away(directory: Path, user: dict[str, Any]) -> None:
    """Make the user own all of it, 0700: an earlier start may have been under another user."""
    for path in (directory, *directory.rglob("*")):
        if path.lstat().st_uid != user["user"]:
            os.chown(path, user["user"], user["group"], follow_symlinks=False)
    directory.chmod(0o700)
