"""The story over Trio: python loop_trio.py PORT."""

import sys
from collections.abc import Awaitable, Callable
from typing import Any

import trio
from awaiting import AwaitingTeller
from rethinkdb import r
from story import whole


async def gather(calls: list[Callable[[], Awaitable[Any]]]) -> list[Any]:
    answers: dict[int, Any] = {}

    async def answer(at: int) -> None:
        answers[at] = await calls[at]()

    async with trio.open_nursery() as nursery:
        for at in range(len(calls)):
            nursery.start_soon(answer, at)
    return [answers[at] for at in range(len(calls))]


async def main(port: int) -> None:
    async with trio.open_nursery() as nursery:
        await AwaitingTeller(lambda: r.connect(port=port, nursery=nursery), gather, aiter).tell(whole())


if __name__ == "__main__":
    r.set_loop_type("trio")
    trio.run(main, int(sys.argv[1]))
