"""Ways of an order through all four services, from inside of the containers. ``python -m journeys [NAME ...]``

The scenes of the demonstration, played silently, and what only a client and the kitchen do. Without names, all. Reads
FTGO_<SERVICE>_URL, FTGO_BROKER_URL, and the ids of the seed from FTGO_SEED_FILE. Exit code 1 with a sentence when
a journey ends elsewhere than it should.
"""

import asyncio
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx
from ftgo_local.deployment import until_ready
from ftgo_local.errors import PlatformError
from ftgo_local.scenes import SCENES
from ftgo_local.scenes.stage import Stage, Unexpected, expect, in_minutes

Journey = Callable[[Stage], Awaitable[None]]
SEED = Path(os.environ["FTGO_SEED_FILE"])


async def a_day_in_the_kitchen(stage: Stage) -> None:
    """The kitchen accepts the ticket, cooks, and the courier picks it up."""
    order = await stage.place(await stage.consumer())
    await stage.settled(order)
    steps = [
        ("accept", {"readyBy": in_minutes(30)}, "ACCEPTED"),
        ("preparing", None, "PREPARING"),
        ("ready", None, "READY_FOR_PICKUP"),
        ("picked-up", None, "PICKED_UP"),
    ]
    for step, body, state in steps:
        ticket = await stage.do("POST", f"{stage.urls.kitchen}/tickets/{order}/{step}", body)
        expect(ticket["state"] == state, f"a ticket in {state} after {step}", ticket)


async def a_blocked_consumer(stage: Stage) -> None:
    """One of the seed's consumers is blocked, and refused at once: Order knows from its own copy."""
    ids = json.loads(SEED.read_bytes())  # noqa: ASYNC240 - a few bytes
    body = await stage.order_for(ids["consumers"]["blocked"], restaurant=ids["restaurants"]["trattoria"])
    await stage.do("POST", f"{stage.urls.order}/orders", body, status=422)


async def the_same_request_twice(stage: Stage) -> None:
    """With one Idempotency-Key, it makes one order."""
    key = {"Idempotency-Key": f"journey-{time.time_ns()}"}
    body = await stage.order_for(await stage.consumer())
    first, second = [
        await stage.show("POST", f"{stage.urls.order}/orders", body, status=202, headers=key) for _ in range(2)
    ]
    expect(first == second, "one answer to both requests", (first, second))
    await stage.settled(first["orderId"])


def journeys(stage: Stage) -> dict[str, Journey]:
    """All that this stage can carry, by name."""
    own: list[Journey] = [a_day_in_the_kitchen, a_blocked_consumer, the_same_request_twice]
    return {play.__name__: play for play in [*(s.play for s in SCENES if not s.lacks(stage)), *own]}


async def main(names: list[str]) -> int:
    async with httpx.AsyncClient(timeout=40, trust_env=False) as client:
        stage = Stage.from_environment(client)
        known = journeys(stage)
        if unknown := set(names) - set(known):
            print(f"no such journey: {', '.join(sorted(unknown))}; there are {', '.join(known)}", file=sys.stderr)
            return 2
        try:
            await until_ready(client, vars(stage.urls), stage.broker)
        except PlatformError as error:
            print(error, file=sys.stderr)
            return 1
        failed = 0
        for name in names or known:
            began = time.monotonic()
            try:
                await known[name](stage)
            except (Unexpected, TimeoutError, httpx.HTTPError) as error:
                failed += 1
                print(f"FAILED  {name}: {error or repr(error)}", file=sys.stderr, flush=True)
            else:
                print(f"ok      {name}, {time.monotonic() - began:.1f} s", flush=True)
    print(f"{len(names or known) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    if not SEED.exists():
        sys.exit("FTGO is not up yet: docker compose up -d --build --wait")
    sys.exit(asyncio.run(main(sys.argv[1:])))
