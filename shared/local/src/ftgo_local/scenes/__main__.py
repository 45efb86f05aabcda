"""The tour against services that run anywhere: ``python -m ftgo_local.scenes``. Needs nothing but their addresses:

FTGO_<SERVICE>_URL, FTGO_<SERVICE>_METRICS_URL where that is not one process or leads to all of them, and
FTGO_BROKER_URL, or FTGO_KAFKA_BOOTSTRAP, for the scene that writes to the broker. Where the audience reaches a service
under another address than we do, FTGO_<SERVICE>_SHOWN_URL is what the curl commands show.
"""

import asyncio
import os
import sys

import httpx

from ftgo_local.deployment import until_ready
from ftgo_local.errors import PlatformError
from ftgo_local.scenes import SCENES
from ftgo_local.scenes.stage import Stage
from ftgo_local.scenes.tour import show
from ftgo_local.seed import Urls


def shown(text: str, urls: Urls) -> str:
    """The text with the addresses under which the audience reaches the services."""
    for service, url in vars(urls).items():
        text = text.replace(url, os.environ.get(f"FTGO_{service.upper()}_SHOWN_URL", url))
    return text


async def main() -> None:
    async with httpx.AsyncClient(timeout=40, trust_env=False) as client:
        stage = Stage.from_environment(client)
        stage.tell = lambda text: print(shown(text, stage.urls), flush=True)
        await until_ready(client, vars(stage.urls), stage.broker)
        await show(SCENES, stage)


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except PlatformError as error:
        sys.exit(f"\n{error}")
