"""The data of every demonstration: three consumers (good, poor, blocked) and two restaurants, made over REST.

May be run again and again: ids are remembered in a file, and what exists is not made again. It needs nothing but the
four URLs: ``python -m ftgo_local.seed`` reads FTGO_CONSUMER_URL, FTGO_KITCHEN_URL, FTGO_ACCOUNTING_URL, FTGO_ORDER_URL
and FTGO_SEED_FILE. It waits for services that are not ready yet.
"""

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx
from ftgo_messaging.runtime.waiting import seconds_to_wait

from ftgo_local.deployment import until_ready
from ftgo_local.errors import PlatformError
from ftgo_local.files import read_json, replace
from ftgo_local.ports import chosen_ports
from ftgo_local.state import state_directory

POOR_CREDIT_LIMIT = "10.00"

CONSUMERS = {
    "good": {"firstName": "Grace", "lastName": "Good"},
    "poor": {"firstName": "Paul", "lastName": "Poor"},
    "blocked": {"firstName": "Bella", "lastName": "Blocked"},
}

RESTAURANTS: dict[str, dict[str, Any]] = {
    "trattoria": {
        "name": "Trattoria Sole",
        "address": {"street1": "1 Harbour Road", "city": "Oakland", "state": "CA", "zip": "94611"},
        "menu": {
            "menuItems": [
                {"id": "1", "name": "Lasagne", "price": "12.80"},
                {"id": "2", "name": "Margherita", "price": "9.50"},
                {"id": "3", "name": "Tiramisu", "price": "6.00"},
            ]
        },
    },
    "wok": {
        "name": "Wok & Roll",
        "address": {"street1": "22 Station Street", "city": "Oakland", "state": "CA", "zip": "94612"},
        "menu": {
            "menuItems": [
                {"id": "1", "name": "Fried noodles", "price": "8.90"},
                {"id": "2", "name": "Spring rolls", "price": "4.40"},
            ]
        },
    },
}


@dataclass(frozen=True)
class Urls:
    """Base URLs of the services."""

    consumer: str
    kitchen: str
    accounting: str
    order: str

    @classmethod
    def local(cls, ports: Mapping[str, int]) -> "Urls":
        names = ("consumer", "kitchen", "accounting", "order")
        return cls(**{name: f"http://127.0.0.1:{ports[name]}" for name in names})

    @classmethod
    def from_environment(cls) -> "Urls":
        """FTGO_<SERVICE>_URL; for what is not set, the local ports."""
        local = cls.local(chosen_ports())
        return cls(**{name: os.environ.get(f"FTGO_{name.upper()}_URL", url) for name, url in vars(local).items()})


async def seed(urls: Urls, file: Path) -> dict[str, dict[str, str]]:
    """Make what is missing, wait until Order knows it, return the ids: {"consumers": {...}, "restaurants": {...}}.

    Raises PlatformError when a service refuses, or after FTGO_WAIT_SECONDS without one, or without Order having heard
    of them. The file is written after every step, so that one that was broken off goes on where it stood.
    """
    async with httpx.AsyncClient(timeout=10, trust_env=False) as client:
        seeding = _Seed(client, urls, file)
        await until_ready(client, vars(urls))
        try:
            return await seeding.run()
        except httpx.HTTPError as error:
            raise PlatformError(f"A service does not answer: {error!r}.", "See `ftgo status`.") from error


class _Seed:
    def __init__(self, client: httpx.AsyncClient, urls: Urls, file: Path) -> None:
        self._client = client
        self._urls = urls
        self._file = file
        known = read_json(file, dict[str, dict[str, str]], "Delete it: consumers and restaurants are made anew then.")
        self._ids: dict[str, dict[str, str]] = {"consumers": {}, "restaurants": {}} | (known or {})

    async def run(self) -> dict[str, dict[str, str]]:
        for name, person in CONSUMERS.items():
            body = {"name": person, "email": f"{name}@example.com", "orderLimit": "1000.00"}
            await self._ensure("consumers", name, f"{self._urls.consumer}/consumers", body, "consumerId")
        for name, restaurant in RESTAURANTS.items():
            await self._ensure("restaurants", name, f"{self._urls.kitchen}/restaurants", restaurant, "id")
        await self._block(self._ids["consumers"]["blocked"])
        await self._lower_credit(self._ids["consumers"]["poor"])
        for kind, ids in self._ids.items():
            for name, id_ in ids.items():
                await self._eventually(f"Order knows {name}", partial(self._replicated, kind, id_))
        return self._ids

    async def _ensure(self, kind: str, name: str, url: str, body: dict[str, Any], id_field: str) -> None:
        known = self._ids[kind].get(name)
        if known and (await self._client.get(f"{url}/{known}")).status_code == httpx.codes.OK:
            return
        self._ids[kind][name] = (await self._send("POST", url, body))[id_field]
        self._file.parent.mkdir(parents=True, exist_ok=True)
        replace(self._file, json.dumps(self._ids, indent=1))

    async def _block(self, consumer: str) -> None:
        url = f"{self._urls.consumer}/consumers/{consumer}"
        if (await self._send("GET", url))["status"] != "BLOCKED":
            await self._send("POST", f"{url}/block")

    async def _lower_credit(self, consumer: str) -> None:
        """Accounting opens the account when it hears of the consumer: until then it knows none to change."""
        url = f"{self._urls.accounting}/accounts/{consumer}/credit-limit"

        async def lowered() -> bool:
            return (await self._client.put(url, json={"creditLimit": POOR_CREDIT_LIMIT})).status_code == httpx.codes.OK

        await self._eventually("Accounting has opened the account", lowered)

    async def _replicated(self, kind: str, id_: str) -> bool:
        answer = await self._client.get(f"{self._urls.order}/{kind}/{id_}")
        if answer.status_code != httpx.codes.OK:
            return False
        must_be_blocked = id_ == self._ids["consumers"]["blocked"]
        return not must_be_blocked or answer.json().get("status") == "BLOCKED"

    async def _eventually(self, what: str, condition: Callable[[], Awaitable[bool]]) -> None:
        seconds = seconds_to_wait()
        try:
            async with asyncio.timeout(seconds):
                while not await condition():  # noqa: ASYNC110 - the condition is in another process
                    await asyncio.sleep(0.1)
        except TimeoutError:
            raise PlatformError(
                f"Waited {seconds:g} s in vain until: {what}.",
                "Is every service ready (`ftgo status`), and what do the logs tell (`ftgo logs order`)?",
            ) from None

    async def _send(self, method: str, url: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        answer = await self._client.request(method, url, json=body)
        if answer.is_error:
            raise PlatformError(
                f"{method} {url} was answered with {answer.status_code}: {answer.text[:300]}",
                "See its log (`ftgo logs`)."
                if answer.is_server_error
                else "If data of another release are there, `ftgo reset` begins anew.",
            )
        content: dict[str, Any] = answer.json()
        return content


def main() -> None:
    """The entry of a job that seeds services running anywhere."""
    file = Path(os.environ.get("FTGO_SEED_FILE") or state_directory() / "seed.json")
    try:
        print(json.dumps(asyncio.run(seed(Urls.from_environment(), file)), indent=1))
    except (PlatformError, OSError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
