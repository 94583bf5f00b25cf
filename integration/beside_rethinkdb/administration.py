"""Random administration: databases, tables, indexes, configuration, users, and what system tables show of it.

One rule: a program depends on its seed alone, and begins with one database of one table. (RethinkDB's tables are not
always ready at once after a change: what it says then is no difference.)
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, Final

from integration.beside_rethinkdb.queries import DATABASE, array, term

DATABASES: Final = ("adm_a", "adm_b", "adm_a", "nope", "rethinkdb", "", "no-minus", "ok_1")
TABLES: Final = ("t1", "t2", "t1", "nope", "", "bad name", "T3")
INDEXES: Final = ("i1", "i2", "i1", "nope", "id", "", "multi word")
USERS: Final = ("bob", "eve", "bob", "admin", "nobody")
OTHERS: Final = ("bob", "eve", "nobody")  # whose passwords are changed
QUERIES: Final = 6
ADMIN_TABLES: Final = ("table_config", "table_status", "db_config", "users", "permissions", "cluster_config")

_IS_OURS: Final = term("FUNC", array(1), term("NE", term("BRACKET", term("VAR", 1), "name"), DATABASE))
_MAKE_TABLE: Final = term("TABLE_CREATE", term("DB", "adm_a"), "t1")


def _system(name: str) -> list[Any]:
    return term("TABLE", term("DB", "rethinkdb"), name)


_IS_OTHER: Final = term("FUNC", array(2), term("NE", term("BRACKET", term("VAR", 2), "id"), "admin"))
AS_BEFORE: Final = (
    term("FOR_EACH", term("FILTER", _system("db_config"), _IS_OURS),
         term("FUNC", array(3), term("DB_DROP", term("BRACKET", term("VAR", 3), "name")))),
    term("DELETE", term("FILTER", _system("users"), _IS_OTHER)),
    term("DB_CREATE", "adm_a"),
    _MAKE_TABLE,
    term("INSERT", term("TABLE", term("DB", "adm_a"), "t1"), array({"id": 1, "a": array(1, 2), "n": 1}, {"id": 2})),
)  # fmt: skip
"""Makes a database with one table, and drops what programs before have made."""


class Administration:
    """Makes programs out of chance."""

    def __init__(self, seed: int) -> None:
        self._dice = random.Random(seed)

    def program(self) -> list[Any]:
        """Some changes, each with a look at something behind it."""
        dice = self._dice
        out = []
        for _ in range(QUERIES):
            out.append(dice.choice(_CHANGES)(self))
            out.append(dice.choice(_LOOKS)(self))
        return out

    def one_of(self, *choices: Any) -> Any:
        return self._dice.choice(choices)

    def some(self, **optargs: Any) -> dict[str, Any]:
        """Some of the optargs; of tuples one item."""
        dice = self._dice
        return {
            name: dice.choice(value) if isinstance(value, tuple) else value
            for name, value in optargs.items()
            if dice.random() < 0.3
        }

    def database(self) -> list[Any]:
        return term("DB", self._dice.choice(DATABASES[:3] if self._dice.random() < 0.8 else DATABASES))

    def table(self) -> list[Any]:
        dice = self._dice
        return term("TABLE", self.database(), dice.choice(TABLES[:3] if dice.random() < 0.85 else TABLES))

    def index(self) -> str:
        return self._dice.choice(INDEXES[:3] if self._dice.random() < 0.8 else INDEXES)

    def key_function(self) -> list[Any]:
        row = term("VAR", 5)
        body = self._dice.choice((
            term("BRACKET", row, "a"), term("BRACKET", row, "n"), array(term("BRACKET", row, "n"), 1), row, 1,
            term("RANDOM"), term("COUNT", term("TABLE", "t")), term("ADD", term("BRACKET", row, "n"), 1),
        ))  # fmt: skip
        return self._dice.choice((term("FUNC", array(5), body), term("FUNC", array(5), body), 1, "n"))

    def permissions(self) -> Any:
        return self.one_of(
            {"read": True}, {"read": True, "write": False}, {"config": True}, {"read": None}, {"nope": True}, {}, 1,
            {"connect": True}, {"read": 1}, None, {"read": False, "write": True, "config": None},
        )  # fmt: skip

    def table_change(self) -> Any:
        return self.one_of(
            {"name": "t2"}, {"name": "t1"}, {"name": "bad name"}, {"durability": "soft"}, {"durability": "nope"},
            {"write_acks": "single"}, {"write_acks": "nope"}, {"db": "adm_b"}, {"db": "nope"}, {"primary_key": "x"},
            {"indexes": array("x")}, {"shards": array()}, {"id": "x"}, {"nope": 1}, {"data": {"a": 1}}, {"name": 1},
            {"data": term("LITERAL", array(1))}, {"write_hook": None}, {},
        )  # fmt: skip


_Make = Callable[[Administration], Any]

_TABLE_OPTIONS: Final[dict[str, Any]] = {
    "primary_key": ("id", "key", "", 1), "durability": ("soft", "hard", "nope"), "shards": (1, 2, 0, 33, "x"),
    "replicas": (1, 0, 2), "nope": 1,
}  # fmt: skip
_RECONFIGURE: Final[dict[str, Any]] = {
    "shards": (1, 2, 3, 0, 1000), "replicas": (1, 0, 2, {"default": 1}, {"x": 1}), "dry_run": (True, False),
    "primary_replica_tag": ("default", "x"), "nope": 1, "emergency_repair": ("unsafe_rollback", "x"),
}  # fmt: skip
_WAIT: Final[dict[str, Any]] = {"wait_for": ("ready_for_writes", "all_replicas_ready", "nope"), "timeout": (1, 0, 5)}

_CHANGES: Final[tuple[_Make, ...]] = (
    lambda a: term("DB_CREATE", a.one_of(*DATABASES)),
    lambda a: term("DB_DROP", a.one_of(*DATABASES)),
    lambda a: term("TABLE_CREATE", a.database(), a.one_of(*TABLES), **a.some(**_TABLE_OPTIONS)),
    lambda a: term("TABLE_CREATE", a.database(), a.one_of(*TABLES)),
    lambda a: term("TABLE_DROP", a.database(), a.one_of(*TABLES)),
    lambda a: term("INDEX_CREATE", a.table(), a.index(), **a.some(multi=(True, 1), geo=True, nope=1)),
    lambda a: term("INDEX_CREATE", a.table(), a.index(), a.key_function(), **a.some(multi=True, geo=True)),
    lambda a: term("INDEX_DROP", a.table(), a.index()),
    lambda a: term("INDEX_RENAME", a.table(), a.index(), a.index(), **a.some(overwrite=(True, False))),
    lambda a: term("UPDATE", term("CONFIG", a.table()), a.table_change()),
    lambda a: term("UPDATE", term("CONFIG", a.database()), a.one_of({"name": "adm_b"}, {"name": ""}, {"x": 1}, {})),
    lambda a: term("UPDATE", term("FILTER", _system("table_config"), {"name": "t1"}), a.table_change()),
    lambda a: term("DELETE", term("FILTER", _system("table_config"), {"name": a.one_of("t1", "t2")})),
    lambda a: term("DELETE", term("FILTER", _system("db_config"), {"name": a.one_of("adm_b", "nope")})),
    lambda a: term("INSERT", _system("db_config"), a.one_of({"name": "adm_b"}, {"name": "a b"}, {}, {"x": 1})),
    lambda a: term("INSERT", _system("table_config"), a.one_of({"name": "t2", "db": "adm_a"}, {"name": "t3"}, {"x": 1}),
                   **a.some(conflict=("update", "replace"), return_changes=True)),
    lambda a: term("INSERT", _system("users"), {"id": a.one_of(*OTHERS), "password": a.one_of("x", False, True, 1)}),
    lambda a: term("INSERT", _system("users"), a.one_of({"id": "bob"}, {"id": 1, "password": "x"}, {"password": "x"})),
    lambda a: term("UPDATE", term("GET", _system("users"), a.one_of(*OTHERS)), {"password": a.one_of("y", False, 2)}),
    lambda a: term("DELETE", term("GET", _system("users"), a.one_of(*USERS))),
    lambda a: term("GRANT", a.one_of(*USERS), a.permissions()),
    lambda a: term("GRANT", a.database(), a.one_of(*USERS), a.permissions()),
    lambda a: term("GRANT", a.table(), a.one_of(*USERS), a.permissions()),
    lambda a: term("INSERT", _system("permissions"), a.one_of({"user": "bob", "permissions": {"read": True}}, {"x": 1}),
                   **a.some(conflict=("update", "replace"), return_changes=True)),
    lambda a: term("DELETE", term("FILTER", _system("permissions"), {"user": a.one_of(*USERS)})),
    lambda a: term("RECONFIGURE", a.table(), **{"shards": 1, "replicas": 1, **a.some(**_RECONFIGURE)}),
    lambda a: term("RECONFIGURE", a.database(), **a.some(**_RECONFIGURE)),
    lambda a: term("REBALANCE", a.table()),
    lambda a: term("SYNC", a.table()),
    lambda a: term("SET_WRITE_HOOK", a.table(), a.one_of(None, 1, term("FUNC", array(1, 2, 3), term("VAR", 3)))),
    lambda a: term(a.one_of("DELETE", "SYNC", "RECONFIGURE"), _system(a.one_of(*ADMIN_TABLES))),
    lambda a: term("INSERT", _system(a.one_of("table_status", "stats", "nope")), {"id": 1}),
)  # fmt: skip

_LOOKS: Final[tuple[_Make, ...]] = (
    lambda a: term("DB_LIST"),
    lambda a: term("TABLE_LIST", a.database()),
    lambda a: term("INDEX_LIST", a.table()),
    lambda a: term("INDEX_WAIT", a.table()),
    lambda a: term("WITHOUT", term("INDEX_STATUS", a.table()), array("progress", "ready")),
    lambda a: term("WITHOUT", term("INDEX_STATUS", a.table(), a.index()), array("progress", "ready")),
    lambda a: term("CONFIG", a.table()),
    lambda a: term("CONFIG", a.database()),
    lambda a: term("STATUS", a.table()),
    lambda a: term("INFO", a.table()),
    lambda a: term("INFO", a.database()),
    lambda a: term("GET_WRITE_HOOK", a.table()),
    lambda a: term("WAIT", a.table(), **a.some(**_WAIT)),
    lambda a: term("WAIT", a.database(), **a.some(**_WAIT)),
    lambda a: term("ORDER_BY", term("WITHOUT", _system("table_config"), "id"), "name"),
    lambda a: term("ORDER_BY", term("WITHOUT", _system("table_status"), "id"), "name"),
    lambda a: term("ORDER_BY", term("WITHOUT", _system("db_config"), "id"), "name"),
    lambda a: term("ORDER_BY", _system("users"), "id"),
    lambda a: term("COERCE_TO", _system("permissions"), "array"),
    lambda a: term("GET", _system("permissions"), array(a.one_of(*USERS))),
    lambda a: term("GET", _system(a.one_of("table_config", "users", "db_config")), a.one_of("bob", "x", 1, None)),
    lambda a: term("COERCE_TO", a.table(), "array"),
    lambda a: term("COUNT", _system(a.one_of(*ADMIN_TABLES, "nope"))),
    lambda a: term("ORDER_BY", a.table(), index=a.index()),
    lambda a: term("CONFIG", _system(a.one_of(*ADMIN_TABLES))),
    lambda a: term("INFO", _system(a.one_of(*ADMIN_TABLES))),
)  # fmt: skip
