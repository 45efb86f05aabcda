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
            url = urlsplit(os.environ[variable])
            through_proxy = f"{url.username}:{url.password}@127.0.0.1:{config['proxies'][name]}"
            os.environ[variable] = url._replace(netloc=through_proxy).geturl()
    os.environ["FTGO_BROKER_URL"] = f"kafka://127.0.0.1:{config['proxies']['kafka']}"
    if os.environ.get("FTGO_PLANTED_BUG"):
        from planted import plant

        plant(name)
    sys.argv = [f"ftgo_{name}"]
    runpy.run_module(f"ftgo_{name}.entrypoints.service", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
