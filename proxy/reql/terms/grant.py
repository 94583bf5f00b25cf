"""`grant`: what a user may do everywhere, in a database, or with a table (auth/grant.cc)."""

from __future__ import annotations

from typing import Any

from model.catalog import Catalog
from model.effect import Kind
from model.errors import ReqlOpFailedError
from proxy.reql.ids import Term
from proxy.reql.nodes import argument
from proxy.reql.permissions import ADMIN, SYSTEM_DB, SYSTEM_DB_UUID, merged, scope_at, with_scope
from proxy.reql.registry import NEVER, term
from proxy.reql.terms.select import find_table
from proxy.reql.values import Db, as_datum, as_string, as_table


@term(Term.GRANT, "grant", "2..3", determinism=NEVER)
def grant(env: Any, *arguments: Any) -> dict[str, Any]:
    """Grants, denies or leaves open; what is not mentioned stays as it is."""
    user = argument(as_string, env, arguments[-2], len(arguments) - 2)
    wanted = as_datum(env, arguments[-1])
    place: tuple[str, ...] = ()
    if len(arguments) == 3:
        scope = arguments[0]
        if isinstance(scope, Db):
            place = (scope.uuid,)
        else:
            table = argument(as_table, env, scope, 0)
            place = (table.db.uuid, table.source.uuid)
    if user == ADMIN:
        raise ReqlOpFailedError(f"The permissions of the user `{user}` can't be modified.")
    _require_rights(env)

    def change(catalog: Catalog, unused: Any) -> tuple[list[Any], tuple[Any, Any]]:
        document = catalog.documents("users").get(user)
        if document is None:
            raise ReqlOpFailedError(f"User `{user}` not found.")
        granted = document.get("permissions", {})
        old = scope_at(granted, place)
        new = merged(old, wanted, not place)
        if new == old:
            return [], (old, new)
        document = {**document, "permissions": with_scope(granted, place, new)}
        return [(int(Kind.PUT_SYSTEM), "users", user, document)], (old, new)

    old, new = env.data.change_catalog(change)
    return {"granted": 1, "permissions_changes": [{"old_val": old or None, "new_val": new or None}]}


def _require_rights(env: Any) -> None:
    """Whoever may write to the table `permissions` may grant."""
    if env.permissions is not None:
        uuid = find_table(env, Db(SYSTEM_DB, SYSTEM_DB_UUID), "permissions").source.uuid
        env.permissions.require("read", SYSTEM_DB_UUID, uuid)
        env.permissions.require("write", SYSTEM_DB_UUID, uuid)
