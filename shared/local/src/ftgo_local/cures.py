"""What to do about a failed start, by what a log or the operating system says of it."""

import re

_CURES = (
    (
        r"no space left on device|disk quota exceeded",
        "The disk is full: make room and start again, the data are kept; or set FTGO_STATE_DIR to a folder elsewhere.",
    ),
    (
        r"address already in use|could not bind",
        "Another program has taken a port: `ftgo doctor` names it; --port-offset 100 runs beside it.",
    ),
    (
        r"cannot allocate memory|insufficient memory|outofmemoryerror|could not map anonymous shared memory",
        "There is too little memory: close other programs; `ftgo doctor` tells how much is needed.",
    ),
    (
        r"permission denied|accessdenied|operation not permitted|read-only file system",
        "A file or folder there cannot be used, as another user's, root's perhaps. Run ftgo as that user, or set "
        "FTGO_STATE_DIR to a folder of yours.",
    ),
    (
        r"could not look up effective user id",
        "PostgreSQL wants its user to have a name: give this one a line in /etc/passwd, or start as another user.",
    ),
    (
        r"incompatible with server|initialized by postgresql version|inconsistentclusterid|metadata\.version"
        r"|can't locate revision",
        "The data are those of another release: start that one, or `ftgo reset` begins anew without them.",
    ),
    (
        r"valid checkpoint|checkpoint record|invalid page|corrupt|meta\.properties|could not find the database system",
        "The data are damaged: bring back a copy of them, or `ftgo reset` begins anew without them.",
    ),
)


def cure(said: object, otherwise: str = "The log tells more; `ftgo doctor` examines this machine.") -> str:
    """One sentence for the first cause that is named in ``said``: a text, lines of a log, or an exception."""
    text = str(said).lower()
    return next((sentence for pattern, sentence in _CURES if re.search(pattern, text)), otherwise)
