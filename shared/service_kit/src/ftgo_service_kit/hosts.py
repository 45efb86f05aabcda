"""Refuses requests that were sent to another name: a stranger's site could point its own name to us, and its pages read
what we answer, from within our network (DNS rebinding). That needs a name, so addresses are fine.
"""

import ipaddress
import re
from collections.abc import Sequence

from starlette.types import ASGIApp, Receive, Scope, Send

from ftgo_service_kit.problems import problem

_HOST = re.compile(r"(?P<name>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:[0-9]{1,5})?")


def known_names(service: str) -> tuple[str, ...]:
    """What a service is called on its own machine, by compose, and inside a cluster."""
    return ("localhost", service, f"{service}-http", f"{service}-http.ftgo", "*.svc", "*.svc.cluster.local")


class AllowHosts:
    """Pure ASGI middleware. A name ``*.rest`` stands for every name below ``rest``, ``*`` for every name."""

    def __init__(self, app: ASGIApp, names: Sequence[str]) -> None:
        self.app = app
        self._names = frozenset(n.lower() for n in names if not n.startswith("*"))
        self._below = tuple(n[1:].lower() for n in names if n.startswith("*"))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        hosts = [value.decode("latin-1") for name, value in scope["headers"] if name == b"host"]
        if not hosts and scope.get("http_version") == "1.0":
            await self.app(scope, receive, send)
            return
        host = _HOST.fullmatch(hosts[0]) if len(hosts) == 1 else None
        if host is None:
            answer = problem(400, "malformed-request", "A request names one host, in one Host header.")
        elif not self._allowed(host["name"].lower().removesuffix(".")):
            detail = f"No service here is called {host['name']}. The operator may add names: FTGO_ALLOWED_HOSTS."
            answer = problem(421, "wrong-host", detail)
        else:
            await self.app(scope, receive, send)
            return
        await answer(scope, receive, send)

    def _allowed(self, name: str) -> bool:
        return name in self._names or name.endswith(self._below) or _is_address(name)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True
