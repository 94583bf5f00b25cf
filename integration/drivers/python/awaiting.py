"""Performs steps with a driver whose calls are awaited: asyncio, Tornado and Trio differ in a few words only."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from rethinkdb import r
from story import Ask, Follow, Leave, Reopen, Step, Story, Together

Gather = Callable[[list[Callable[[], Awaitable[Any]]]], Awaitable[list[Any]]]


class AwaitingTeller:
    """connect: opens a connection. gather: runs at once what it is given. rows: iterates over a cursor."""

    def __init__(
        self,
        connect: Callable[[], Awaitable[Any]],
        gather: Gather,
        rows: Callable[[Any], AsyncIterator[Any]],
    ) -> None:
        self._connect = connect
        self._gather = gather
        self._rows = rows
        self._conn: Any = None

    async def tell(self, story: Story) -> None:
        self._conn = await self._connect()
        answer: Any = None
        error: Exception | None = None
        while True:
            try:
                step = story.send(answer) if error is None else story.throw(error)
            except StopIteration:
                await self._conn.close()
                return
            answer, error = None, None
            try:
                answer = await self._perform(step)
            except r.errors.ReqlError as refused:
                error = refused

    async def _ask(self, query: Any, options: dict[str, Any]) -> Any:
        answer = await query.run(self._conn, **options)
        if not hasattr(answer, "fetch_next"):
            return answer
        return [row async for row in self._rows(answer)]

    async def _perform(self, step: Step) -> Any:
        match step:
            case Ask(query, options):
                return await self._ask(query, options)
            case Together(queries):
                return await self._gather([lambda query=query: self._ask(query, {}) for query in queries])
            case Follow(feed, writes, changes):
                cursor = await feed.run(self._conn)
                for write in writes:
                    await write.run(self._conn)
                return await self._first(cursor, changes)
            case Leave(query, rows):
                return await self._first(await query.run(self._conn, max_batch_rows=20), rows)
            case Reopen():
                await self._conn.noreply_wait()
                await self._conn.close()
                self._conn = await self._connect()

    async def _first(self, cursor: Any, count: int) -> list[Any]:
        read: list[Any] = []
        async for row in self._rows(cursor):
            read.append(row)
            if len(read) == count:
                break
        closed = cursor.close()  # Tornado's and Twisted's say no more about it
        if closed is not None:
            await closed
        return read
