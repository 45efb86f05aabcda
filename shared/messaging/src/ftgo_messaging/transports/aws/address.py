"""Where the service is: a region of AWS, or the address of one that has its API."""

import re
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlsplit

from ftgo_messaging.transports.lanes import LANES
from ftgo_messaging.transports.port import BrokerRefuses

_REGION = re.compile(r"[a-z]{2,3}(-[a-z]+)+-\d+")
_YES_OR_NO = {"yes": True, "no": False}


@dataclass(frozen=True, slots=True)
class Address:
    """``region`` is empty where the client's own settings say it, ``endpoint`` where the region does."""

    region: str
    endpoint: str
    lanes: int
    visibility: int
    wait: int
    signed: bool

    def __str__(self) -> str:
        return self.endpoint or self.region or "the region of the client's settings"


def parse(url: str) -> Address:
    """Of ``sqs://REGION`` or ``sqs://HOST:PORT?region=REGION``. Raises BrokerRefuses for anything else."""
    try:
        parts = urlsplit(url)
        if parts.username is not None or parts.password is not None:
            raise BrokerRefuses(
                "The broker's URL has a user or a password. AWS credentials do not belong there: set AWS_ACCESS_KEY_ID "
                "and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or give the machine a role."
            )
        options = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
        host, port = parts.hostname or "", parts.port
        region = host if port is None and _REGION.fullmatch(host) else ""
        # A port is that of an emulation, or of a tunnel; AWS' own endpoints speak TLS.
        tls = _YES_OR_NO[options.pop("tls", "no" if port else "yes")]
        at = f"{host}:{port}" if port else host
        address = Address(
            region=options.pop("region", "") or region,
            endpoint="" if region or not host else f"{'https' if tls else 'http'}://{at}",
            lanes=int(options.pop("lanes", LANES)),
            visibility=int(options.pop("visibility", 30)),
            wait=int(options.pop("wait", 1)),
            signed=_YES_OR_NO[options.pop("signed", "yes")],
        )
    except (ValueError, KeyError):
        raise BrokerRefuses(_form()) from None
    in_bounds = 1 <= address.lanes <= 999 and 2 <= address.visibility <= 43_200 and 0 <= address.wait <= 20
    if options or parts.path.strip("/") or not in_bounds:
        raise BrokerRefuses(_form())
    return address


def _form() -> str:
    return (
        "The broker's URL should look like sqs://eu-central-1?lanes=12, or sqs://127.0.0.1:9324?region=elasticmq for a "
        "server that has the API; it knows lanes (1 to 999), visibility (2 to 43200 s), wait (0 to 20 s), and yes or "
        "no for tls and signed. Mend FTGO_BROKER_URL."
    )
