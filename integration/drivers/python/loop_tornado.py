"""The story over Tornado: python loop_tornado.py PORT."""

import sys
from collections.abc import Awaitable, Callable
from typing import Any

from awaiting import AwaitingTeller
from loop_asyncio import rows
from rethinkdb import r
from story import whole
from tornado import gen, ioloop


async def gather(calls: list[Callable[[], Awaitable[Any]]]) -> list[Any]:
    return list(await gen.multi([call() for call in calls]))


async def main() -> None:
    await AwaitingTeller(lambda: r.connect(port=int(sys.argv[1])), gather, rows).tell(whole())


if __name__ == "__main__":
    r.set_loop_type("tornado")
    ioloop.IOLoop.current().run_sync(main)
