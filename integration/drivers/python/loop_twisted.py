"""The story over Twisted: python loop_twisted.py PORT."""

import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from awaiting import AwaitingTeller
from rethinkdb import r
from rethinkdb.errors import RqlCursorEmpty
from story import whole
from twisted.internet.defer import Deferred, ensureDeferred, gatherResults
from twisted.internet.task import react


async def rows(cursor: Any) -> AsyncIterator[Any]:
    while True:
        try:
            row = await cursor.next()
        except RqlCursorEmpty:
            return
        yield row


async def gather(calls: list[Callable[[], Awaitable[Any]]]) -> list[Any]:
    return list(await gatherResults([Deferred.fromCoroutine(call()) for call in calls]))  # type: ignore[arg-type]


def main(reactor: Any, port: str) -> Deferred[None]:
    return ensureDeferred(AwaitingTeller(lambda: r.connect(port=int(port)), gather, rows).tell(whole()))


if __name__ == "__main__":
    r.set_loop_type("twisted")
    react(main, sys.argv[1:])
