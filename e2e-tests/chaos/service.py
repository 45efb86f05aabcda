"""Starts a service of a chaos run: the service's own entrypoint, with addresses that lead through the proxies.

    python service.py order RUN.json

With FTGO_PLANTED_BUG it first replaces a function of the library by a wrong one (see ``planted/``); without it, the
service is exactly what ships.
"""

import json
import os
import runpy
import sys
from pathlib import Path
from urllib.parse import urlsplit


def main() -> None:
    os.environ.pop("FTGO_BROKER_FILE", None)  # it names the broker itself, past the proxy
    name, config = sys.argv[1], json.loads(Path(sys.argv[2]).read_text())
    for variable in (f"FTGO_{name.upper()}_DATABASE_URL", f"FTGO_{name.upper()}_RELAY_DATABASE_URL"):
        if variable in os.environ:
            os.environ[variable] = _moved(os.environ[variable], config["proxies"][name])
    os.environ["FTGO_BROKER_URL"] = _moved(os.environ["FTGO_BROKER_URL"], config["proxies"]["broker"])
    if os.environ.get("FTGO_PLANTED_BUG"):
        from planted import plant

        plant(name)
    sys.argv = [f"ftgo_{name}"]
    runpy.run_module(f"ftgo_{name}.entrypoints.service", run_name="__main__", alter_sys=True)


def _moved(address: str, port: int) -> str:
    """The same URL, at another port."""
    url = urlsplit(address)
    user = url.netloc.rpartition("@")
    return url._replace(netloc=f"{user[0]}{user[1]}{url.hostname}:{port}").geturl()


if __name__ == "__main__":
    main()
