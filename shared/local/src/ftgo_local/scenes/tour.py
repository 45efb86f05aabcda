"""Shows scenes one after the other: what to expect, what was sent and answered, and how long it took."""

import asyncio
import sys
import textwrap
import time
from collections.abc import Sequence

import httpx

from ftgo_local.errors import PlatformError
from ftgo_local.scenes import Scene
from ftgo_local.scenes.stage import Stage, Unexpected

WIDTH = 100


async def show(scenes: Sequence[Scene], stage: Stage, *, pause: bool = False, cure: str = "") -> None:
    """A scene that this stage lacks something for is left out, with the reason. Raises PlatformError, with ``cure``,
    when one goes otherwise than it tells."""
    for scene in scenes:
        print(f"\n{'-' * WIDTH}\nScene {scene.number}: {scene.title}\n")
        print(textwrap.fill(scene.expect.replace("\n", " "), WIDTH), end="\n\n")
        if missing := scene.lacks(stage):
            print(f"  Left out. {missing}")
            continue
        if pause and sys.stdin.isatty():
            await asyncio.to_thread(input, "  Enter begins. ")
        began = time.monotonic()
        try:
            await scene.play(stage)
        except (Unexpected, TimeoutError, httpx.HTTPError) as error:
            raise PlatformError(f"Scene {scene.number} went otherwise: {error or repr(error)}", cure) from error
        print(f"\n  As expected. The scene took {time.monotonic() - began:.1f} s.", flush=True)
