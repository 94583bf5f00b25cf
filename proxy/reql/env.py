"""All that a running query may see of the world, as ports: data, time, dice, user, limits.

One rule: terms reach nothing but this. `server/assemble` plugs the ports; tests give fakes.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any, Protocol

from model.catalog import Catalog
from model.catalog import Table as CatalogTable
from model.effect import Effect
from proxy.answers import Done, Fibers
from proxy.reql.permissions import ADMIN, Permissions
from proxy.reql.traffic import Traffic

CatalogChange = Callable[[Catalog, Callable[[], int]], tuple[list[Effect], Any]]
"""Decides a catalog change: (newest catalog, function that gives unused numbers) -> (effects, result)."""


class Data(Protocol):
    """The stored data. Reads see the applied state, and every write that was acknowledged before they began."""

    @property
    def catalog(self) -> Catalog: ...
    @property
    def applied_index(self) -> int: ...

    def log_first_index(self) -> int:
        """The oldest entry of the log that is kept."""

    def read_log(self, low: int, high: int, max_bytes: int) -> list[tuple[int, bytes]]:
        """(log index, payload) of the entries low to high, at least one, not much more than `max_bytes`."""

    def get(self, table_id: int, key: bytes) -> bytes | None: ...
    def get_many(self, table_id: int, keys: Sequence[bytes]) -> list[bytes | None]: ...
    def scan_rows(
        self, table_id: int, low: bytes | None, high: bytes | None, limit: int, reverse: bool = False
    ) -> tuple[list[bytes], bytes]: ...
    def scan_index_chunk(
        self, index_id: int, low: bytes | None, high: bytes | None, limit: int, reverse: bool = False
    ) -> tuple[list[bytes], list[bytes]]: ...
    def scan_index_rows(
        self, index_id: int, table_id: int, low: bytes, high: bytes, limit: int, reverse: bool = False
    ) -> tuple[list[bytes], int, bytes]:
        """(the rows of at most `limit` entries, the number of entries, the last index key if there may be more)."""

    def count(self, table_id: int) -> int: ...
    def index_ready(self, index_id: int) -> bool: ...
    def index_progress(self, index_id: int) -> float: ...

    def get_head(self, table_id: int, key: bytes) -> bytes | None:
        """A row as the writes proposed so far leave it; only the leader may ask, and must `commit` before it yields."""

    def get_head_many(self, table_id: int, keys: Sequence[bytes]) -> list[bytes | None]:
        """`get_head` for many keys."""

    def commit(self, effects: list[Effect], durability: str) -> None:
        """Makes the effects one entry of the log. Returns when they are applied ("hard") or in the log ("soft")."""

    def promise(self, effects: list[Effect], durability: str) -> Callable[[Done], object] | None:
        """As `commit`, but instead of waiting gives what to wait for: `begin(done)`. None if that is nothing."""

    def confirm(self) -> None:
        """Returns when what `get_head` gave is sure to stay: for a write that found nothing to change."""

    def change_catalog(self, change: CatalogChange) -> Any:
        """Runs `change` when no other catalog change is under way, commits its effects, and gives its result."""

    def prepare_read(self, read_mode: str) -> None:
        """Waits until a read in this mode ("single", "majority", "outdated") may look at the applied state."""

    def prepare_get(self, read_mode: str, table_id: int, key: bytes) -> bool:
        """As `prepare_read`, for that row alone. Whether the others may be read as well, without another look."""

    def can_get(self) -> bool:
        """Whether any row may be read now in mode "single": `prepare_get` would not wait. False if in doubt."""

    def can_write(self) -> bool:
        """Whether a write would be taken; a refusal in between is still possible."""

    def sync(self, table_id: int) -> None:
        """Returns when all acknowledged writes are on disk."""

    def view(self) -> Any:
        """The data as they are at this moment, for reads alone; to be closed."""


class TableSource(Protocol):
    """One table as terms see it: a stored table or a system table. Keys are data, rows JSON texts."""

    uuid: str
    primary_key: str

    def get(self, env: Any, key: Any) -> bytes | None: ...
    def get_many(self, env: Any, keys: Sequence[Any]) -> list[bytes | None]: ...
    def count(self, env: Any) -> int: ...

    def doc_counts(self, env: Any) -> list[int]:
        """How many rows each shard has, roughly."""

    def stream(self, env: Any, table: Any, part: Any) -> Any:
        """The rows of a TableSlice as a Stream."""

    def get_all(self, env: Any, table: Any, keys: list[Any], index_name: str | None) -> Any:
        """The rows under any of the keys, as a Stream."""


class SystemTables(Protocol):
    """The tables of database `rethinkdb`."""

    def names(self) -> list[str]: ...

    def table_config_row(self, env: Any, table: CatalogTable) -> dict[str, Any]:
        """The row of `table_config` for a stored table, identified by names."""

    def planned_config_row(self, env: Any, table: CatalogTable, shards: int) -> dict[str, Any]:
        """The row of `table_config` that a stored table would have with so many shards."""

    def table_status_row(self, env: Any, table: CatalogTable) -> dict[str, Any]:
        """The row of `table_status` for a stored table, identified by names."""

    def servers(self, catalog: Catalog) -> Sequence[Any]:
        """The servers that tables can be put on (layouts.TaggedServer)."""

    def is_complete(self, catalog: Catalog) -> bool:
        """Whether all replicas of all tables are there."""

    def source(self, env: Any, name: str, identifier_format: str) -> TableSource | None: ...


class World(Protocol):
    """What is the same for all queries of a server."""

    data: Data

    def data_at(self, env: Any, view: str) -> Data:
        """The data as a view (a row of `rethinkdb.views`) holds it."""

    system: SystemTables
    feeds: Any
    http: Any
    javascript: Any
    server_name: str
    lineage: str  # the history that this server's log belongs to: another one after every restore
    server_uuid: str
    array_limit: int  # of queries that do not say
    durability: str  # of tables and writes that do not say

    def traffic(self, table_id: int) -> Traffic:
        """Where what is read from and written to a table is counted."""

    def now_s(self) -> float: ...
    def random(self) -> Any:
        """A random.Random-like source of dice."""

    def new_uuid(self) -> str: ...

    def pause(self, env: Any, seconds: float) -> None:
        """Lets the query rest; others run meanwhile."""


class Env:
    """One run of one query. `slots` holds the values of all variables; the compiler knows their places."""

    __slots__ = (
        "_now", "array_limit", "data", "feeds", "fibers", "javascript", "lens", "may_promise", "options", "params",
        "permissions", "profile", "promise", "read_mode", "read_prepared", "slots", "user", "world",
    )  # fmt: skip

    def __init__(self, world: World, fibers: Fibers, user: str, slot_count: int) -> None:
        self.world = world
        self.data = world.data
        self.fibers = fibers
        self.user = user
        self.permissions = None if user == ADMIN else Permissions(world, user)
        self.slots: list[Any] = [None] * slot_count
        self.params: Sequence[Any] = ()
        self.array_limit = world.array_limit
        self.read_mode = "single"
        self.read_prepared = False
        self.options: dict[str, Any] = {}
        self.profile: list[dict[str, Any]] | None = None
        self._now: float | None = None
        self.feeds: list[Any] = []  # the changefeeds that this query opened
        self.lens: Hashable = None  # two queries with the same one show the same of the same changes
        self.javascript: Any = None  # the session of its scripts, once it has run one
        self.may_promise = False  # the query's last commit may be left to whoever sends the answer
        self.promise: Callable[[Done], object] | None = None  # and this is what has to be waited for then

    def now_s(self) -> float:
        """The time at which the query began, in seconds since 1970; the same however often it is asked."""
        if self._now is None:
            self._now = self.world.now_s()
        return self._now

    def breathe(self) -> None:
        self.fibers.breathe()

    def prepare_read(self) -> None:
        """To be called before the first look at stored rows."""
        if not self.read_prepared:
            self.data.prepare_read(self.read_mode)
            self.read_prepared = True
