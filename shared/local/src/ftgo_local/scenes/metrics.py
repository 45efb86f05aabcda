"""What a service counts, summed over its processes. Each counts for itself and answers for itself alone: where api,
worker and relay are processes of their own, the API knows nothing of the messages that the workers handle."""

import asyncio
import os
import re
import socket
from collections.abc import Iterable

import httpx


def metrics_urls(service: str, otherwise: str) -> list[str]:
    """Where the processes of a service tell their metrics: FTGO_<SERVICE>_METRICS_URL, one URL or several with blanks
    between, each of which stands for as many processes as its name has addresses; else the URL of the service."""
    return (os.environ.get(f"FTGO_{service.upper()}_METRICS_URL") or otherwise).split()


async def total(client: httpx.AsyncClient, urls: Iterable[str], name: str, labels: dict[str, str]) -> float:
    """The sum of a metric over all label sets that agree with ``labels``, and over all processes behind these URLs.

    Raises httpx.HTTPError when one of them does not answer: a sum without it would be wrong."""
    found = 0.0
    for process in {process for url in urls for process in await _processes(httpx.URL(url))}:
        answer = await client.get(process)
        answer.raise_for_status()
        for line in re.findall(rf"^{name}(?:{{.*}})? .*$", answer.text, re.MULTILINE):
            if all(f'{label}="{value}"' in line for label, value in labels.items()):
                found += float(line.rsplit(" ", 1)[1])
    return found


async def _processes(url: httpx.URL) -> list[str]:
    """Asked by their addresses, which every service takes for names of its own."""
    entries = await asyncio.get_running_loop().getaddrinfo(
        url.host, url.port or 80, family=socket.AF_INET, type=socket.SOCK_STREAM
    )
    return [str(url.copy_with(host=str(entry[4][0]), path="/metrics")) for entry in entries]
