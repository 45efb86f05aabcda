"""Running as somebody else than root, as PostgreSQL insists, without being told by the user how.

Started as root, PostgreSQL runs as ``nobody``. Two things may then be out of its reach, because a folder above them is
closed to it (a checkout under /root is): the programs of the wheel and the data directory. The first are copied, the
second is placed in the temporary folder and linked from where it should be.
"""

import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from ftgo_local.errors import PlatformError

UNPRIVILEGED_USER = "nobody"


def drop_privileges() -> dict[str, Any]:
    """Arguments for subprocess that drop root's privileges; none when there are none to drop."""
    if os.geteuid() != 0:
        return {}
    user = pwd.getpwnam(UNPRIVILEGED_USER)
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


def _can(test: str, path: Path, user: dict[str, Any]) -> bool:
    """Whether that user passes ``test -x`` or ``test -w`` on the path: asked, not computed from modes and ACLs."""
    return subprocess.run(["/usr/bin/env", "test", test, str(path)], check=False, cwd="/", **user).returncode == 0  # noqa: S603


def reachable_programs(install: Path, program: str) -> Path:
    """The ``bin`` folder of an installation, or of a copy of it (once, in the temporary folder) that can be reached."""
    user = drop_privileges()
    if not user or _can("-x", install / "bin" / program, user):
        return install / "bin"
    stamp = int((install / "bin" / program).stat().st_mtime)
    copy = Path(tempfile.gettempdir()) / f"ftgo-{install.name}-{stamp}"
    if copy.exists() and copy.stat().st_uid != os.geteuid():
        raise PlatformError(f"{copy} belongs to somebody else.", "Remove it, or set TMPDIR to a folder of your own.")
    if not copy.exists():
        unfinished = Path(tempfile.mkdtemp(prefix=f"{copy.name}-", dir=copy.parent))
        shutil.copytree(install, unfinished, symlinks=True, dirs_exist_ok=True)
        unfinished.chmod(0o755)
        unfinished.rename(copy)
    return copy / "bin"


def owned_directory(wanted: Path) -> Path:
    """A folder that the unprivileged user owns and reaches: ``wanted``, or a temporary one linked from there.

    Raises PlatformError when a link from an earlier start leads nowhere: the system has cleaned its temporary folder.
    """
    user = drop_privileges()
    if wanted.is_symlink() and not wanted.exists():
        raise PlatformError(
            f"The data of {wanted} were in {wanted.readlink()}, which is gone: the system cleans that folder.",
            "Run `ftgo reset` to begin anew; set FTGO_STATE_DIR to a folder that others can enter to keep the data.",
        )
    wanted.mkdir(parents=True, exist_ok=True)
    if not user:
        if wanted.stat().st_uid != os.geteuid():
            raise PlatformError(
                f"{wanted} was made by another user, root perhaps.", "Run ftgo as that user, or set FTGO_STATE_DIR."
            )
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
            f"The user {UNPRIVILEGED_USER} can reach neither {wanted.parent} nor {target.parent}.",
            "Set FTGO_STATE_DIR to a folder that it can enter.",
        )
    return target


def _give_away(directory: Path, user: dict[str, Any]) -> None:
    """Make the user own all of it: an earlier start may have been under another user."""
    for path in (directory, *directory.rglob("*")):
        os.chown(path, user["user"], user["group"], follow_symlinks=False)
