"""A small world for tests of terms: the real evaluator over a real state machine in memory, without network.

One rule: everything happens at once. A commit is applied before it returns and an index is built at the next
query, so no test has to wait.

    def test_something(run, table):
        table("t", [{"id": 1}])
        assert run(r.table("t").count()) == 1
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import orjson
import pytest
from rethinkdb.ast import ReQLEncoder, RqlQuery

from model.effect import Kind, encode
from model.errors import ReqlError, ReqlNonExistenceError, ReqlOpFailedError
from model.keys import primary_key_bytes
from proxy.answers import ATOM, PARTIAL, Answer, QueryContext
from proxy.reql.evaluator import ReqlEvaluator
from proxy.reql.index_functions import index_function
from server.replica import Replica
from server.system import Site, SystemTables
from server.views import Views, views_table
from server.vitals.rates import Ledger
from storage.engine import MemoryEngine
from storage.head import Head
from storage.machine import Machine

DATABASE = "d1000000-0000-4000-8000-000000000000"


class InstantLog:
    """A log of one server that applies what is proposed at once."""

    can_serve = True
    takes_proposals = True
    has_lease = True

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.head = Head(machine.store)

    @property
    def applied_index(self) -> int:
        return self.machine.applied_index

    def propose(self, payload: bytes) -> tuple[int, int]:
        log_index = self.machine.applied_index + 1
        self.machine.apply([(log_index, payload)])
        return log_index, 1

    def before_turn(self, call: Callable[[], object]) -> None:
        call()

    def when_applied(self, log_index: int, raft_term: int, done: Callable[[Exception | None], None]) -> None:
        self.head.settle(log_index)
        done(None)

    def read_index(self, done: Callable[[Exception | None], None]) -> None:
        done(None)


class InstantFibers:
    """Fibers for a world in which nothing has to be waited for."""

    current: Any = None

    def wait(self, deferred: Any, timeout_s: float | None = None) -> Any:
        raise AssertionError("nothing to wait for")

    def wait_for(self, begin: Callable[[Any], object], timeout_s: float | None = None) -> Any:
        answers: list[tuple[Exception | None, Any]] = []
        begin(lambda error, value=None: answers.append((error, value)))
        assert answers, "nothing to wait for"
        error, value = answers[0]
        if error is not None:
            raise error
        return value

    def breathe(self) -> None:
        """Nobody else wants a turn."""

    def run_s(self) -> float:
        return 0.0


class SmallWorld:
    """The World port: one database `test`, a clock that stands still, dice that fall the same way every time."""

    feeds: Any = None
    http: Any = None
    javascript: Any = None

    def __init__(self) -> None:
        self.machine = Machine(MemoryEngine(), index_function)
        log = InstantLog(self.machine)
        self.fibers = InstantFibers()
        self.data = Replica(log, self.machine.store, log.head, self.fibers, lambda: 0)
        site = Site("51000000-0000-4000-8000-000000000000", "small", "host", "rethinkdb 2.4.4", 1, (), 0.0, 0.0)
        self.system = SystemTables(site)
        self.system.add(views_table(Views(self.machine.store.view, self.now_s)))
        self.traffic = Ledger(self.now_s, lambda: (0, 0)).traffic
        self.server_name, self.server_uuid = site.name, site.server_id
        self.lineage = "00"
        self.array_limit, self.durability = 100_000, "hard"
        self.evaluator = ReqlEvaluator(self)
        self.user = "admin"  # who asks
        self._dice = random.Random(7)
        self._uuids = 0
        self.apply((Kind.CREATE_DATABASE, DATABASE, "test"))

    def apply(self, *effects: Any) -> None:
        """Makes changes that no query made."""
        self.machine.apply([(self.machine.applied_index + 1, encode(list(effects), 0))])

    def make_table(self, name: str, rows: list[dict[str, Any]], primary_key: str = "id") -> None:
        """A table of database `test` with these rows."""
        table_id = self.machine.catalog.next_id
        uuid = f"7ab1e000-0000-4000-8000-{table_id:012}"
        self.apply((Kind.CREATE_TABLE, table_id, uuid, DATABASE, name, primary_key, {}))
        self.apply(
            *[
                (
                    Kind.PUT_ROW,
                    table_id,
                    primary_key_bytes(row[primary_key]),
                    orjson.dumps(row, option=orjson.OPT_SORT_KEYS),
                )
                for row in rows
            ]
        )

    def now_s(self) -> float:
        return 1_000_000.0

    def random(self) -> random.Random:
        return self._dice

    def new_uuid(self) -> str:
        self._uuids += 1
        return f"00000000-0000-4000-8000-{self._uuids:012}"

    def pause(self, env: Any, seconds: float) -> None:
        while self.machine.build_step():
            pass

    def data_at(self, env: Any, view: str) -> Any:
        raise ReqlOpFailedError(f"View `{view}` does not exist.")

    def start(self, query: RqlQuery | list[Any], takes_promises: bool = False, **optargs: Any) -> Answer:
        """The first answer to a query of the official driver, or to a raw term."""
        while self.machine.build_step():
            pass
        body = ReQLEncoder().encode([1, query, optargs]).encode()
        context = QueryContext(
            self.user,
            ("127.0.0.1", 0),
            1,
            self.fibers,  # type: ignore[arg-type]
            takes_promises=takes_promises,
        )
        return self.evaluator.start(body, context)

    def run(self, query: RqlQuery | list[Any], **optargs: Any) -> Any:
        """What a query comes to; a stream is read to its end, as a list."""
        answer = self.start(query, **optargs)
        items = list(answer.items)
        while answer.kind == PARTIAL:
            assert answer.cursor is not None
            answer = answer.cursor.next_batch()
            items += answer.items
        values = [orjson.loads(item) for item in items]
        return values[0] if answer.kind == ATOM else values  # an array is its items


@pytest.fixture
def world() -> SmallWorld:
    return SmallWorld()


@pytest.fixture(scope="module")
def world_of_module() -> SmallWorld:
    """One world for tests that only read, such as those of Hypothesis."""
    return SmallWorld()


@pytest.fixture
def run(world: SmallWorld) -> Callable[..., Any]:
    """run(query, **optargs) -> the query's value."""
    return world.run


@pytest.fixture
def table(world: SmallWorld) -> Callable[..., None]:
    """table(name, rows, primary_key="id") makes a table."""
    return world.make_table


@pytest.fixture
def failure(world: SmallWorld) -> Callable[..., tuple[str, str, list[int | str]]]:
    """failure(query, **optargs) -> (class, first line of the message, backtrace) of the error that a query ends in."""

    def find(query: RqlQuery | list[Any], **optargs: Any) -> tuple[str, str, list[int | str]]:
        with pytest.raises(ReqlError) as caught:
            world.run(query, **optargs)
        error = caught.value
        kind = "ReqlNonExistenceError" if isinstance(error, ReqlNonExistenceError) else type(error).__name__
        return kind, error.message.partition("\n")[0], list(error.path or ())

    return find
