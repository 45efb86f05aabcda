"""The journey of an order on an emulation of the AWS API: ``run.py [-- ARGUMENTS OF PYTEST]``

It starts ElasticMQ, which has SQS' API, gives its address to ``ftgo up`` as that of a broker that runs elsewhere, and
goes through the journeys of orders. What it shows is that the services run on this API unchanged; it says nothing of
AWS' order, speed or storage. Exit code 0 when all have passed. ``make test-emulations`` calls it.
"""

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from ftgo_local.brokers.elasticmq import ElasticMQ
from ftgo_local.errors import PlatformError
from ftgo_local.ports import free_port

ROOT = Path(__file__).parents[2]
JOURNEYS = ROOT / "e2e-tests/journeys/test_orders.py"


def main(arguments: Sequence[str]) -> int:
    more = arguments[arguments.index("--") + 1 :] if "--" in arguments else []
    place = Path(tempfile.mkdtemp(prefix="ftgo-emulation-"))
    server = ElasticMQ(place / "elasticmq", free_port())
    title = server.known_version()
    try:
        asyncio.run(server.start())
        print(f"== {title}: journeys of orders", flush=True)
        command = [sys.executable, "-P", "-m", "pytest", "-q", "--timeout", "300", *more, str(JOURNEYS)]
        environment = {name: value for name, value in os.environ.items() if name != "FTGO_BROKER"}
        done = subprocess.run(command, cwd=ROOT, env={**environment, "FTGO_BROKER_URL": server.url}, check=False)
        print(f"{title}: the journeys of orders {'failed' if done.returncode else 'passed'}")
        return done.returncode
    except PlatformError as error:
        print(f"{title}: absent: {error.cause} {error.cure}")
        return 1
    finally:
        server.stop()
        shutil.rmtree(place, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
