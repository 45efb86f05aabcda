"""`ftgo up` for a chaos run, in a process of its own: its services talk through proxies, and a Kafka advertises one.

Its only argument is the path of a JSON file, written by ``stand.py``. It ends, in order, when its standard input does:
a harness that was killed leaves nothing behind.
"""

import json
import os
import signal
import sys
import threading
from pathlib import Path

from ftgo_local.broker_choice import Choice
from ftgo_local.launch import supervise
from ftgo_local.services import SERVICES, ServiceSpec
from ftgo_local.state import StateDirectory


def _end_with_parent() -> None:
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGTERM)


def main() -> None:
    config = json.loads(Path(sys.argv[1]).read_text())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    wrapper = str(Path(__file__).with_name("service.py"))
    specs = [
        ServiceSpec(
            name,
            migrate=(sys.executable, "-m", f"ftgo_{name}.entrypoints.migrate"),
            run=(sys.executable, wrapper, name, sys.argv[1]),
        )
        for name in SERVICES
    ]
    supervise(
        StateDirectory(Path(config["directory"])),
        config["ports"],
        broker=Choice(config["broker"]),
        specs=specs,
        with_seed=False,
        broker_settings=config["broker_settings"],
    )


if __name__ == "__main__":
    main()
