"""What is the same for all queries of this server: data, system tables, time, dice."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from proxy.answers import WaitTimeout
from proxy.reql import env
from proxy.reql.env import Data
from proxy.reql.feeds.hub import FeedHub
from proxy.reql.traffic import Traffic
from server.system import SystemTables
from server.uuids import RandomUuids
from server.views import Views


class ServerWorld:
    """The `World` port of the evaluator."""

    def __init__(
        self, data: Data, system: SystemTables, feeds: FeedHub, views: Views, traffic: Callable[[int], Traffic]
    ) -> None:
        self.data = data
        self.system: env.SystemTables = system
        self.feeds = feeds
        self.lineage = ""
        self.http: Any = None
        self.javascript: Any = None
        self.server_name = system.site.name
        self.server_uuid = system.site.server_id
        self._views = views
        self._traffic = traffic
        self.array_limit = 100_000
        self.durability = "hard"
        self._dice = random.SystemRandom()
        self.new_uuid = RandomUuids().new

    def now_s(self) -> float:
        return time.time()

    def random(self) -> random.Random:
        """Dice that nobody can guess."""
        return self._dice

    def traffic(self, table_id: int) -> Traffic:
        """Where what is read from and written to a table is counted."""
        return self._traffic(table_id)

    def pause(self, run: Any, seconds: float) -> None:
        """Lets the query rest; others run meanwhile."""
        with suppress(WaitTimeout):
            run.fibers.wait_for(lambda done: None, seconds)

    def data_at(self, run: Any, view: str) -> Data:
        """The data as a view (a row of `rethinkdb.views`) holds it."""
        return self._views.data(view)
