"""What is the same for all queries of this server: data, system tables, time, dice."""

from __future__ import annotations

import random
import time
from contextlib import suppress
from typing import Any
from uuid import uuid4

from model.errors import ReqlOpFailedError
from proxy.answers import WaitTimeout
from proxy.reql import env
from proxy.reql.env import Data
from server.system import SystemTables


class ServerWorld:
    """The `World` port of the evaluator."""

    def __init__(self, data: Data, system: SystemTables) -> None:
        self.data = data
        self.system: env.SystemTables = system
        self.feeds: Any = None
        self.http: Any = None
        self.javascript: Any = None
        self.server_name = system.site.name
        self.server_uuid = system.site.server_id
        self._dice = random.SystemRandom()

    def now_s(self) -> float:
        return time.time()

    def random(self) -> random.Random:
        """Dice that nobody can guess."""
        return self._dice

    def new_uuid(self) -> str:
        return str(uuid4())

    def pause(self, run: Any, seconds: float) -> None:
        """Lets the query rest; others run meanwhile."""
        with suppress(WaitTimeout):
            run.fibers.wait_for(lambda done: None, seconds)

    def bracket(self, run: Any, row: Any, key: Any) -> Any:
        """`row[key]` as the term BRACKET does it."""
        from proxy.reql.terms.objects import bracket

        return bracket(run, row, key)

    def data_at(self, run: Any, view: str) -> Data:
        """The data as a view holds it; there are no views yet."""
        raise ReqlOpFailedError(f"View `{view}` does not exist.")
