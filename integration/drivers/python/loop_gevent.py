"""The story over gevent, whose calls look as if they blocked: python loop_gevent.py PORT."""

import gevent.monkey

gevent.monkey.patch_all()

import sys  # noqa: E402
from typing import Any  # noqa: E402

import gevent  # noqa: E402
from loop_plain import Teller, value_of  # noqa: E402
from rethinkdb import r  # noqa: E402
from story import whole  # noqa: E402


class GeventTeller(Teller):
    def together(self, queries: list[Any]) -> list[Any]:
        tasks = [gevent.spawn(lambda query=query: value_of(query.run(self._conn))) for query in queries]
        gevent.joinall(tasks, raise_error=True)
        return [task.value for task in tasks]


if __name__ == "__main__":
    r.set_loop_type("gevent")
    GeventTeller(int(sys.argv[1])).tell(whole())
