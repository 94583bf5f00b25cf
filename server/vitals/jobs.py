"""`jobs`: what the server is doing, and a way to end queries (clustering/administration/jobs).

A row's id is [type, UUID]; deleting a row of type "query" ends the query. One rule: monitors know RethinkDB's types
and fail on others, so there are no others; work on backups has tables of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, Protocol
from uuid import UUID, uuid5

from model.errors import ReqlError, ReqlOpFailedError
from model.pretty_query import term_text
from proxy.clients import RunningQuery
from proxy.frames import parse_query
from proxy.reql.ids import Term
from server.system import Change, Row, SystemTable, SystemTables
from server.system.fields import is_uuid
from server.system.site import database_of

INDEXES: Final = UUID("74d855a5-0c40-4930-a451-d1ce508ef2d2")
COMPACTIONS: Final = UUID("b8766ece-d15c-4f96-bee5-c0edacf10c9c")
WIDTH: Final = 89
MAX_QUERY_BYTES: Final = 64 << 10  # longer queries are not printed: that alone would take long
NAMES: Final = {int(id): id.name for id in Term}.__getitem__


class Queries(Protocol):
    """What is asked of `proxy.clients.Clients` and `proxy.forward.Forwarder`."""

    def running(self) -> list[RunningQuery]: ...
    def kill(self, query_id: str) -> bool: ...


class Jobs:
    """The table `jobs` of one server. sizes: figures of the storage engine; seconds: a monotonic clock.

    queries: those of its own drivers, and those that it runs for drivers of other servers.
    """

    def __init__(
        self,
        system: SystemTables,
        queries: Sequence[Queries],
        sizes: Callable[[], dict[str, int]],
        seconds: Callable[[], float],
    ) -> None:
        self._system = system
        self._queries = queries
        self._sizes = sizes
        self._seconds = seconds
        self._started_s = seconds()
        self._building_since: dict[int, float] = {}

    def declared(self) -> SystemTable:
        return SystemTable("jobs", self._rows, write=self._write, is_listed=True)

    def index_began(self, index_id: int) -> None:
        """A secondary index is to be built from now on."""
        self._building_since[index_id] = self._seconds()

    def _rows(self, env: Any, form: str) -> Iterator[Row]:
        servers = [self._system.own(env.data.catalog).named(form)]
        for queries in self._queries:
            for query in queries.running():
                if _may_see(env, query):
                    yield {**_query_row(query), "servers": servers}
        if env.permissions is None:
            yield from self._constructions(env, form, servers)
            if self._sizes().get("running_compactions"):
                yield {
                    "duration_sec": None,
                    "id": ["disk_compaction", str(uuid5(COMPACTIONS, self._system.site.server_id))],
                    "info": {},
                    "servers": servers,
                    "type": "disk_compaction",
                }

    def _constructions(self, env: Any, form: str, servers: list[str]) -> Iterator[Row]:
        now_s = self._seconds()
        building = set()
        for table in env.data.catalog.tables.values():
            for index in table.indexes.values():
                if env.data.index_ready(index.index_id):
                    continue
                building.add(index.index_id)
                yield {
                    "duration_sec": now_s - self._building_since.get(index.index_id, self._started_s),
                    "id": ["index_construction", str(uuid5(INDEXES, table.uuid + index.name))],
                    "info": {
                        "db": database_of(env.data.catalog, table, form),
                        "index": index.name,
                        "progress": env.data.index_progress(index.index_id),
                        "table": table.uuid if form == "uuid" else table.name,
                    },
                    "servers": servers,
                    "type": "index_construction",
                }
        for index_id in self._building_since.keys() - building:
            del self._building_since[index_id]

    def _write(self, change: Change) -> Row | None:
        if change.new is not None:
            raise ReqlOpFailedError("The `rethinkdb.jobs` system table only allows deletions, not inserts or updates.")
        key = change.key
        if key.__class__ is not list or len(key) != 2 or key[0].__class__ is not str or not is_uuid(key[1]):
            return None
        if key[0] != "query":
            raise ReqlOpFailedError(f"Jobs of type `{key[0]}` cannot be interrupted.")
        if change.old is not None:  # which only those see who may
            any(queries.kill(key[1]) for queries in self._queries)
        return None


def _may_see(env: Any, query: RunningQuery) -> bool:
    return env.permissions is None or query.user == env.user


def _query_row(query: RunningQuery) -> Row:
    return {
        "duration_sec": query.duration_s,
        "id": ["query", query.query_id],
        "info": {
            "client_address": query.address[0],
            "client_port": query.address[1],
            "query": query_text(query.body),
            "user": query.user,
        },
        "type": "query",
    }


def query_text(body: bytes) -> str:
    """A query as RethinkDB's JavaScript driver would spell it. body: the JSON text of [1, term, optargs]."""
    if len(body) > MAX_QUERY_BYTES:
        return f"(a query of {len(body)} bytes)"
    try:
        return term_text(parse_query(body)[1], NAMES, WIDTH)
    except (ReqlError, LookupError, TypeError, RecursionError):
        return body.decode("utf-8", "replace")  # not a query at all: it is about to fail
