"""`wait`: until tables can be used (terms/db_table.cc)."""

from __future__ import annotations

from typing import Any, Final

from model.errors import ReqlOpFailedError
from proxy.reql.ids import Term
from proxy.reql.nodes import argument
from proxy.reql.permissions import SYSTEM_DB
from proxy.reql.registry import NEVER, fail, term
from proxy.reql.values import Db, as_integer, as_string, as_table

PAUSE_S: Final = 0.05
TIMED_OUT: Final = "Timed out while waiting for tables."
READINESS: Final = ("ready_for_outdated_reads", "ready_for_reads", "ready_for_writes", "all_replicas_ready")


@term(
    Term.WAIT,
    "wait",
    "0..1",
    optargs={"timeout": as_integer, "wait_for": as_string},
    determinism=NEVER,
)
def wait(env: Any, *target: Any, **optargs: Any) -> dict[str, int]:
    """Returns when the table, or all tables of the database, are as ready as asked for."""
    if not target:
        fail("`wait` can only be called on a table or database.")
    wanted = optargs.get("wait_for", READINESS[-1])
    if wanted not in READINESS:
        names = ", ".join(f"'{name}'" for name in READINESS[:-1])
        fail(f"Unknown table readiness state: '{wanted}', must be one of {names}, or '{READINESS[-1]}'", "wait_for")
    if isinstance(target[0], Db):
        database, count = target[0], None
    else:
        database, count = argument(as_table, env, target[0], 0).db, 1
    if database.name == SYSTEM_DB:
        raise ReqlOpFailedError(
            f"Database `{SYSTEM_DB}` is special; the system tables in it are always available and don't need to be "
            "waited on."
        )
    env.prepare_read()
    if count is None:
        found = env.data.catalog.databases_by_uuid.get(database.uuid)
        count = 0 if found is None else len(found.tables)
    if count and optargs.get("timeout") == 0:
        raise ReqlOpFailedError(TIMED_OUT)  # as in RethinkDB, whose time is over before it looks
    if wanted == READINESS[-1]:
        _wait_for_replicas(env, optargs.get("timeout"))
    return {"ready": count}


def _wait_for_replicas(env: Any, timeout_s: int | None) -> None:
    """Returns when all servers are there: every table is on all of them."""
    waited_s = 0.0
    while not env.world.system.is_complete(env.data.catalog):
        if timeout_s is not None and waited_s >= timeout_s:
            raise ReqlOpFailedError(TIMED_OUT)
        env.world.pause(env, PAUSE_S)
        waited_s += PAUSE_S
