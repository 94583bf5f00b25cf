"""Backups in the official Python driver: importing this module adds methods to it.

    import rewinddb
    from rethinkdb import r

    r.db("mydb").backup().run(conn)                     # waits; the row of the finished backup
    r.db("mydb").table("mytable").backup(name="before the change").run(conn)
    r.db("mydb").backups().run(conn)                    # newest first
    r.db("mydb").restore().run(conn)                    # as the newest backup of it has it
    r.backup().run(conn)                                # the whole server

One rule: each is plain ReQL on the tables of database `rethinkdb`, so it works on every loop type, in functions and
in any other driver, written out. What fails raises ReqlRuntimeError with the reason.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rethinkdb import RethinkDB, ast, r

__all__ = ["extend"]

_SYSTEM = "rethinkdb"


def _insert(table: str, row: Any) -> Any:
    """Inserts a row that is waited for; gives the row as it is then, or raises what went wrong."""
    inserted = r.db(_SYSTEM).table(table).insert(row, return_changes="always")
    return inserted.do(
        lambda result: r.branch(result["errors"] > 0, r.error(result["first_error"]), result["changes"][0]["new_val"])
    )


def _given(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields that were given. A trailing _ is Python's way around its own words (`as_`)."""
    return {name.removesuffix("_"): value for name, value in fields.items() if value is not None}


def _of_database(database: Any) -> Any:
    return database.config()["name"]


def _of_table(table: Any) -> Any:
    return table.config().do(lambda config: config["db"] + "." + config["name"])


def _backup_database(self: Any, name: str | None = None, wait: bool = True, **fields: Any) -> Any:
    """Backs a database up; the row of `backups` when it is finished. fields: vault, vaults, hold, max_bytes_per_s."""
    asked = _given({"name": name, "wait": wait, **fields})
    return _of_database(self).do(lambda database: _insert("backups", r.expr(asked).merge({"databases": [database]})))


def _backup_table(self: Any, name: str | None = None, wait: bool = True, **fields: Any) -> Any:
    """Backs a table up; as for a database."""
    asked = _given({"name": name, "wait": wait, **fields})
    return _of_table(self).do(lambda table: _insert("backups", r.expr(asked).merge({"tables": [table]})))


def _backup_all(name: str | None = None, wait: bool = True, **fields: Any) -> Any:
    """Backs the whole server up; as for a database."""
    return _insert("backups", _given({"name": name, "wait": wait, **fields}))


def _successful() -> Any:
    backups = r.db(_SYSTEM).table("backups").filter({"state": "successful"})
    return backups.order_by(r.desc("requested"))


def _backups_of_database(self: Any) -> Any:
    """The successful backups that hold the database, newest first."""
    return _of_database(self).do(lambda database: _holding_database(database))


def _holding_database(database: Any) -> Any:
    return _successful().filter(
        lambda row: (row["databases"] + row["tables"]).is_empty() | row["databases"].contains(database)
    )


def _backups_of_table(self: Any) -> Any:
    """The successful backups that hold the table, newest first."""
    return _of_table(self).do(
        lambda table: _successful().filter(
            lambda row: (
                (row["databases"] + row["tables"]).is_empty()
                | row["tables"].contains(table)
                | row["databases"].contains(table.split(".")[0])
            )
        )
    )


def _backups_of_all() -> Any:
    """The successful backups of the whole server, newest first."""
    return _successful().filter(lambda row: (row["databases"] + row["tables"]).is_empty())


def _image_of(row: Any) -> Any:
    return {"to": r.expr("image:").add(row["images"][0]["image"]), "vault": row["images"][0]["vault"]}


def _newest(backups: Any) -> Any:
    """Where the newest of some backups lies, as fields of a restore."""
    return (
        backups.limit(1)
        .coerce_to("array")
        .do(
            lambda found: r.branch(
                found.is_empty(), r.error("There is no successful backup of it."), _image_of(found[0])
            )
        )
    )


def _restore_database(self: Any, to: Any = None, wait: bool = True, **fields: Any) -> Any:
    """Restores a database: to its newest backup, or to a moment (`to`: "latest", "index:N", a time, "image:NAME").

    fields: those of the table `restores`, such as vault, as_, key. The row of `restores` when it is finished.
    """
    asked = _given({"to": to, "wait": wait, **fields})

    def restore(database: Any) -> Any:
        row = r.expr(asked).merge({"databases": [database]})
        return _insert("restores", row if to is not None else row.merge(_newest(_holding_database(database))))

    return _of_database(self).do(restore)


def _restore_table(self: Any, to: Any = None, wait: bool = True, **fields: Any) -> Any:
    """Restores a table that is there (as a database does); one that was dropped is asked for through its database."""
    asked = _given({"to": to, "wait": wait, **fields})

    def restore(table: Any) -> Any:
        row = r.expr(asked).merge({"tables": [table]})
        return _insert("restores", row if to is not None else row.merge(_newest(_backups_of_table(self))))

    return _of_table(self).do(restore)


def _restore_all(to: Any = "latest", wait: bool = True, **fields: Any) -> Any:
    """Restores what the newest moment of a vault holds, or another moment."""
    return _insert("restores", _given({"to": to, "wait": wait, **fields}))


def extend() -> None:
    """Adds the methods; importing the module has done it already."""
    for kind, functions in (
        (ast.DB, (_backup_database, _backups_of_database, _restore_database)),
        (ast.Table, (_backup_table, _backups_of_table, _restore_table)),
    ):
        for name, function in zip(("backup", "backups", "restore"), functions, strict=True):
            setattr(kind, name, function)
    whole: dict[str, Callable[..., Any]] = {"backup": _backup_all, "backups": _backups_of_all, "restore": _restore_all}
    for name, function_of_all in whole.items():
        setattr(RethinkDB, name, staticmethod(function_of_all))


extend()
