"""Strangers at the public port can neither fill the memory nor shut out Flower's own processes."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from fedcondense.flower.public_crowd import PublicCrowd
from fedcondense.flower.public_door import PublicDoor

PASSED, AGAIN = 299, 503
ADMIN, PUBLIC = 8445, 8444
PULL = "/v1/fleet/pull-messages"


class Flower:
    """An application that answers no request before it is told to."""

    def __init__(self) -> None:
        self.may_answer = asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.may_answer.wait()
        await send({"type": "http.response.start", "status": PASSED, "headers": []})


async def ask(app: Any, path: str = PULL, *, length: int = 0, port: int = PUBLIC) -> int:
    statuses: list[int] = []

    async def send(message: Any) -> None:
        statuses.append(message.get("status", 0))

    headers = [(b"content-length", str(length).encode())]
    scope = {"type": "http", "path": path, "method": "POST", "headers": headers}
    await app(scope | {"server": (None, port)}, None, send)
    return statuses[0]


async def crowded(app: Any, flower: Flower, *lengths: int, **last: Any) -> tuple[int, int]:
    """What the last of many requests hears while the others are under way, and what afterwards."""
    waiting = [asyncio.create_task(ask(app, length=length)) for length in lengths]
    await asyncio.sleep(0)
    newest = asyncio.create_task(ask(app, **last))
    await asyncio.sleep(0)
    flower.may_answer.set()
    while_crowded = await newest
    assert await asyncio.gather(*waiting) == [PASSED] * len(waiting)
    return while_crowded, await ask(app, **last)


def test_so_many_requests_are_under_way_at_once_and_no_more() -> None:
    async def play() -> tuple[int, int]:
        flower = Flower()
        return await crowded(PublicCrowd(flower, 1000, most_requests=3), flower, 0, 0, 0)

    assert asyncio.run(play()) == (AGAIN, PASSED)


def test_bodies_that_are_announced_count_together() -> None:
    async def play() -> tuple[int, int]:
        flower = Flower()
        return await crowded(PublicCrowd(flower, 1000), flower, 400, 400, length=201)

    assert asyncio.run(play()) == (AGAIN, PASSED)


def test_flowers_own_processes_are_never_crowded_out(tmp_path: Path) -> None:
    async def play() -> tuple[int, int]:
        flower, ready = Flower(), tmp_path / "ready"
        ready.touch()
        app = PublicDoor(PublicCrowd(flower, 1000, most_requests=1), ADMIN, ready, 1000, 1000)
        path = "/v1/runtime/acquire-task"
        return await crowded(app, flower, 0, path=path, length=5000, port=ADMIN)

    assert asyncio.run(play()) == (PASSED, PASSED)


def test_a_request_that_fails_counts_no_more() -> None:
    async def failing(scope: Any, receive: Any, send: Any) -> None:
        raise ConnectionError

    async def play() -> int:
        crowd = PublicCrowd(failing, 1000, most_requests=1)
        for _ in range(3):
            try:
                await ask(crowd)
            except ConnectionError:
                continue
        return crowd._requests

    assert asyncio.run(play()) == 0
