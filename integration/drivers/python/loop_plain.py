"""The story over plain sockets: python loop_plain.py PORT."""

import sys
from typing import Any

from rethinkdb import r
from story import Ask, Follow, Leave, Reopen, Step, Story, Together, whole


def value_of(answer: Any) -> Any:
    """What a query gave, a cursor read to its end."""
    return list(answer) if isinstance(answer, r.Cursor) else answer


class Teller:
    """Performs steps with a driver whose calls block (or look as if they did)."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._conn = r.connect(port=port)

    def tell(self, story: Story) -> None:
        answer: Any = None
        error: Exception | None = None
        while True:
            try:
                step = story.send(answer) if error is None else story.throw(error)
            except StopIteration:
                self._conn.close()
                return
            answer, error = None, None
            try:
                answer = self._perform(step)
            except r.errors.ReqlError as refused:
                error = refused

    def _perform(self, step: Step) -> Any:
        match step:
            case Ask(query, options):
                return value_of(query.run(self._conn, **options))
            case Together(queries):
                return self.together(queries)
            case Follow(feed, writes, changes):
                return self._follow(feed, writes, changes)
            case Leave(query, rows):
                cursor = query.run(self._conn, max_batch_rows=20)
                read = [next(cursor) for _ in range(rows)]
                cursor.close()
                return read
            case Reopen():
                self._conn.noreply_wait()
                self._conn.close()
                self._conn = r.connect(port=self._port)

    def together(self, queries: list[Any]) -> list[Any]:
        """A blocking connection has one query at a time, but as many open cursors as one likes."""
        return [value_of(answer) for answer in [query.run(self._conn) for query in queries]]

    def _follow(self, feed: Any, writes: list[Any], changes: int) -> list[Any]:
        cursor = feed.run(self._conn)
        for write in writes:
            write.run(self._conn)
        read = [cursor.next(wait=30) for _ in range(changes)]
        cursor.close()
        return read


if __name__ == "__main__":
    Teller(int(sys.argv[1])).tell(whole())
