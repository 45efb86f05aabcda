"""What a scene plays on: REST calls that are shown as curl with their answer and its time, and who is on stage.

Every scene brings its own consumers, so that scenes can be played in any order and any number of times.
"""

import json
import os
import re
import shlex
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import httpx
from ftgo_messaging.testing.eventually import eventually

from ftgo_local.scenes.metrics import metrics_urls, total
from ftgo_local.seed import RESTAURANTS, Urls

if TYPE_CHECKING:
    from ftgo_local.scenes.control import Control

T = TypeVar("T")
Json = dict[str, Any]
Line = tuple[str, int]
"""A menu item's id and a quantity."""

ADDRESS = {"street1": "9 Hill Lane", "city": "Oakland", "state": "CA", "zip": "94612"}
SUPPER: tuple[Line, ...] = (("1", 2), ("3", 1))
"""Two portions of lasagne and a tiramisu: 31.60."""


class Unexpected(AssertionError):
    """The system did something else than the scene tells. The sentence says what was expected, and what was found."""


def expect(holds: bool, expected: str, found: object) -> None:
    if not holds:
        raise Unexpected(f"Expected {expected}; found {found}")


def curl(request: httpx.Request) -> str:
    """The command that sends this request."""
    words = ["curl", "-i", str(request.url)]
    if request.method != ("POST" if request.content else "GET"):
        words[1:1] = ["-X", request.method]
    for name in ("Content-Type", "Prefer", "Idempotency-Key", "Last-Event-ID"):
        if name in request.headers:
            words += ["-H", f"{name}: {request.headers[name]}"]
    if request.content:
        words += ["-d", request.content.decode()]
    return shlex.join(words)


class Stage:
    """``broker`` (a URL) and ``control`` are None where they are out of reach. ``metrics`` are URLs, for a service
    whose own does not lead to all of its processes. ``tell`` takes lines of text."""

    def __init__(
        self,
        client: httpx.AsyncClient,
        urls: Urls,
        *,
        broker: str | None = None,
        control: "Control | None" = None,
        metrics: Mapping[str, Sequence[str]] | None = None,
        tell: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.client = client
        self.urls = urls
        self.broker = broker
        self.control = control
        self.metrics = metrics or {}
        self.tell = tell
        self._restaurant: str | None = None
        self._ahead: timedelta | None = None

    @classmethod
    def from_environment(cls, client: httpx.AsyncClient) -> "Stage":
        """On the deployment that FTGO_<SERVICE>_URL, FTGO_<SERVICE>_METRICS_URL and FTGO_BROKER_URL name; for the last,
        FTGO_KAFKA_BOOTSTRAP does, too."""
        urls = Urls.from_environment()
        metrics = {service: metrics_urls(service, url) for service, url in vars(urls).items()}
        kafka = os.environ.get("FTGO_KAFKA_BOOTSTRAP")
        broker = os.environ.get("FTGO_BROKER_URL") or (f"kafka://{kafka}" if kafka else None)
        return cls(client, urls, broker=broker, metrics=metrics)

    @property
    def kafka(self) -> str | None:
        """Where Kafka is reached, for what reads and writes its records; None where the broker is another."""
        url = urlsplit(self.broker or "")
        return url.netloc if url.scheme == "kafka" else None

    # -- REST ------------------------------------------------------------------------------------------------------

    async def show(
        self, method: str, url: str, body: Json | None = None, *, status: int = 200, headers: Json | None = None
    ) -> Json:
        """Send a request before the eyes of the audience. Raises Unexpected when it is answered otherwise."""
        request = self.client.build_request(method, url, json=body, headers=headers)
        self.tell(f"  $ {curl(request)}")
        started = time.monotonic()
        answer = await self.client.send(request)
        milliseconds = (time.monotonic() - started) * 1000
        self.tell(f"  < {answer.status_code} {HTTPStatus(answer.status_code).phrase} after {milliseconds:.0f} ms")
        self.tell(f"    {answer.text}")
        return _checked(answer, status)

    async def do(self, method: str, url: str, body: Json | None = None, *, status: int = 200) -> Json:
        """The same behind the scenes."""
        return _checked(await self.client.request(method, url, json=body), status)

    async def until(self, check: Callable[[], Awaitable[T]], *, within: float = 60.0) -> T:
        """Call ``check`` until it no longer raises Unexpected, a minute at most."""
        return await eventually(check, within=within, every=0.05)

    # -- who is on stage -------------------------------------------------------------------------------------------

    async def consumer(self, first_name: str = "Grace", *, order_limit: str = "1000.00") -> str:
        """Register a consumer. Its account opens when Accounting hears of it, or at the first order."""
        body = {"name": {"firstName": first_name, "lastName": "Guest"}, "orderLimit": order_limit}
        return str((await self.do("POST", f"{self.urls.consumer}/consumers", body, status=201))["consumerId"])

    async def credit_limit(self, consumer: str, limit: str) -> None:
        """Set it, as soon as there is an account."""
        url = f"{self.urls.accounting}/accounts/{consumer}/credit-limit"
        await self.until(lambda: self.do("PUT", url, {"creditLimit": limit}))

    async def restaurant(self, menu: Sequence[Json] | None = None) -> str:
        """A restaurant that Order knows; the trattoria, made once, unless a menu is given."""
        if menu is None and self._restaurant:
            return self._restaurant
        body = RESTAURANTS["trattoria"] | ({} if menu is None else {"menu": {"menuItems": list(menu)}})
        restaurant = str((await self.do("POST", f"{self.urls.kitchen}/restaurants", body, status=201))["id"])
        await self.until(lambda: self.do("GET", f"{self.urls.order}/restaurants/{restaurant}"))
        if menu is None:
            self._restaurant = restaurant
        return restaurant

    async def order_for(self, consumer: str, lines: Sequence[Line] = SUPPER, restaurant: str | None = None) -> Json:
        """The body of an order, delivered in an hour by the service's own clock."""
        return {
            "consumerId": consumer,
            "restaurantId": restaurant or await self.restaurant(),
            "deliveryTime": in_minutes(60, await self._clock_ahead()),
            "deliveryAddress": ADDRESS,
            "lineItems": line_items(lines),
        }

    async def _clock_ahead(self) -> timedelta:
        """By how much the clock of Order, which refuses a time in the past, is ahead of this machine's; asked once."""
        if self._ahead is None:
            answer = await self.client.get(f"{self.urls.order}/livez")
            self._ahead = parsedate_to_datetime(answer.headers["Date"]) - datetime.now(UTC)
        return self._ahead

    async def place(self, consumer: str, lines: Sequence[Line] = SUPPER, restaurant: str | None = None) -> str:
        """Order behind the scenes. Returns the order's id at once; it is not settled yet."""
        body = await self.order_for(consumer, lines, restaurant)
        return str((await self.do("POST", f"{self.urls.order}/orders", body, status=202))["orderId"])

    async def cancel(self, order: str, *, status: int = 202) -> Json:
        """Ask for the cancellation. With 202 it is under way; it is not settled yet."""
        return await self.do("POST", f"{self.urls.order}/orders/{order}/cancel", status=status)

    async def revise(self, order: str, lines: Sequence[Line], *, status: int = 202) -> Json:
        """Ask for other lines. With 202 that is under way; it is not settled yet."""
        body = {"revisedOrderLineItems": line_items(lines)}
        return await self.do("POST", f"{self.urls.order}/orders/{order}/revise", body, status=status)

    # -- what has become of it -------------------------------------------------------------------------------------

    async def order(self, order: str) -> Json:
        return await self.do("GET", f"{self.urls.order}/orders/{order}")

    async def settled(self, order: str, state: str = "APPROVED") -> Json:
        """The order in that state. Raises Unexpected when it settles in another, or not within a minute."""

        async def check() -> Json:
            headers = {"Prefer": "wait=10"}
            answer = await self.client.get(f"{self.urls.order}/orders/{order}", headers=headers)
            found = _checked(answer, 200)
            expect(not found["state"].endswith("_PENDING"), f"order {order} to be {state}", found["state"])
            return found

        found = await self.until(check)
        expect(found["state"] == state, f"order {order} to be {state}", found)
        return found

    async def show_settled(self, order: str, state: str, since: float) -> Json:
        """The same before the eyes of the audience. ``since``: the time.monotonic() from which the settling counts."""
        url = f"{self.urls.order}/orders/{order}"
        self.tell(f"  $ {curl(self.client.build_request('GET', url, headers={'Prefer': 'wait=30'}))}")
        found = await self.settled(order, state)
        self.tell(f"  < settled {(time.monotonic() - since) * 1000:.0f} ms after the request")
        shown = {
            name: found[name]
            for name in ("state", "orderTotal", "rejection", "changeRefusal", "version")
            if found.get(name)
        }
        self.tell(f"    {json.dumps(shown)}")
        return found

    async def events(self, order: str, after: int = 0) -> list[Json]:
        """What the order's event stream tells until it closes itself, from the first event or from after that one."""
        headers = {"Last-Event-ID": str(after)} if after else {}
        answer = await self.client.get(f"{self.urls.order}/orders/{order}/events", headers=headers)
        if answer.status_code == HTTPStatus.NO_CONTENT:
            return []
        expect(answer.status_code == HTTPStatus.OK, "an event stream", f"{answer.status_code}: {answer.text[:500]}")
        events = re.findall(r"^id: (\d+)\nevent: order\ndata: (.*)$", answer.text, re.MULTILINE)
        return [{"id": int(number), **json.loads(data)} for number, data in events]

    async def ticket(self, order: str) -> Json:
        return await self.do("GET", f"{self.urls.kitchen}/tickets/{order}")

    async def account(self, consumer: str) -> Json:
        return await self.do("GET", f"{self.urls.accounting}/accounts/{consumer}")

    async def metric(self, service: str, name: str, **labels: str) -> float:
        """The sum of a counter over all label sets that agree with ``labels``, and over all processes of the service
        (``scenes.metrics``). Waits for one that does not answer, a minute at most, then raises Unexpected."""
        urls = self.metrics.get(service) or [getattr(self.urls, service)]

        async def told() -> float:
            try:
                return await total(self.client, urls, name, labels)
            except (httpx.HTTPError, OSError) as error:
                raise Unexpected(f"Expected the metrics of {service}; found {error!r}") from error

        return await self.until(told)


def line_items(lines: Sequence[Line]) -> list[Json]:
    return [{"menuItemId": item, "quantity": quantity} for item, quantity in lines]


def in_minutes(minutes: int, ahead: timedelta = timedelta()) -> str:
    """``ahead``: of this machine's clock."""
    return (datetime.now(UTC) + ahead + timedelta(minutes=minutes)).strftime("%Y-%m-%dT%H:%M:%SZ")


def _checked(answer: httpx.Response, status: int) -> Json:
    what = f"{answer.request.method} {answer.request.url} to be answered with {status}"
    expect(answer.status_code == status, what, f"{answer.status_code}: {answer.text[:500]}")
    content: Json = answer.json()
    return content
