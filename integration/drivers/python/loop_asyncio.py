"""The story over asyncio: python loop_asyncio.py PORT."""

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from awaiting import AwaitingTeller
from rethinkdb import r
from story import whole


async def rows(cursor: Any) -> AsyncIterator[Any]:
    while await cursor.fetch_next():
        yield await cursor.next()


async def gather(calls: list[Callable[[], Awaitable[Any]]]) -> list[Any]:
    return list(await asyncio.gather(*(call() for call in calls)))


async def main(port: int) -> None:
    await AwaitingTeller(lambda: r.connect(port=port), gather, rows).tell(whole())


if __name__ == "__main__":
    r.set_loop_type("asyncio")
    asyncio.run(main(int(sys.argv[1])))
