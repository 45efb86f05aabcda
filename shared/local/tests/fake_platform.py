"""`ftgo up` with two services that do nothing, for the tests of the supervisor. Arguments: state directory, ports."""

import json
import os
import sys
from pathlib import Path

from ftgo_contracts.channels import ORDER_EVENTS
from ftgo_local.broker_choice import choose
from ftgo_local.console import plain
from ftgo_local.errors import PlatformError
from ftgo_local.launch import supervise
from ftgo_local.services import ServiceSpec
from ftgo_local.state import StateDirectory

fake = str(Path(__file__).with_name("fake_service.py"))
specs = [
    ServiceSpec(name, (sys.executable, "-c", "print('schema is current')"), (sys.executable, fake, name))
    for name in ("order", "accounting")
]
try:
    supervise(
        StateDirectory(Path(sys.argv[1])),
        json.loads(sys.argv[2]),
        plain(sys.stdout),
        specs=specs,
        broker=choose(os.environ.get("FTGO_BROKER"), StateDirectory(Path(sys.argv[1])), os.environ),
        channels=[ORDER_EVENTS],
        with_seed=False,
    )
except PlatformError as error:
    sys.exit(1 if error.told else str(error))
