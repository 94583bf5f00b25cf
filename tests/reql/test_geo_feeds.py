"""A changefeed on get_intersecting tells what comes into a geometry, moves in it and leaves it."""

from __future__ import annotations

import orjson
from rethinkdb import r

from proxy.reql.feeds.hub import FeedHub
from tests.reql.conftest import SmallWorld

T = r.table("t")
AREA = r.polygon([0, 0], [4, 0], [4, 4], [0, 4])


def test_rows_come_and_go():
    world = SmallWorld()
    hub = FeedHub(world.machine.watched.add, world.machine.watched.discard, lambda wake: wake())
    world.feeds, world.machine.on_changes = hub, hub.on_changes
    world.make_table("t", [])
    world.run(T.insert([{"id": 1, "g": r.point(1, 1)}, {"id": 2, "g": r.point(9, 9)}]))
    world.run(T.index_create("g", geo=True))
    feed = T.get_intersecting(AREA, index="g").pluck("id").changes(include_initial=True)
    answer = world.start(feed)

    def news():
        return [orjson.loads(item) for item in answer.cursor.first_batch().items]

    seen = [orjson.loads(item) for item in answer.items] + news()
    assert seen == [{"new_val": {"id": 1}}]
    world.run(T.get(2).update({"g": r.point(2, 2)}))
    world.run(T.get(1).update({"g": r.point(8, 8)}))
    world.run(T.insert({"id": 3, "g": "elsewhere"}))
    world.run(T.get(2).delete())
    assert news() == [
        {"old_val": None, "new_val": {"id": 2}},
        {"old_val": {"id": 1}, "new_val": None},
        {"old_val": {"id": 2}, "new_val": None},
    ]
