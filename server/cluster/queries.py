"""The queries that servers themselves run on the table of members, as the bodies a driver would send."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from proxy.reql.ids import Term
from server.cluster.members import MEMBERS


def update_member(member_id: int, fields: Mapping[str, Any]) -> bytes:
    """The query that changes fields of a member's row."""
    row = [int(Term.GET), [_table(MEMBERS), member_id]]
    return _query([int(Term.UPDATE), [row, _literal(fields)]])


def insert_member(row: Mapping[str, Any]) -> bytes:
    """The query that lets a server in; its answer shows the row."""
    return _query([int(Term.INSERT), [_table(MEMBERS), _literal(row)], {"return_changes": True}])


def _table(name: str) -> list[Any]:
    return [int(Term.TABLE), [[int(Term.DB), ["rethinkdb"]], name]]


def _literal(value: Any) -> list[Any]:
    return [int(Term.JSON), [orjson.dumps(value).decode()]]


def _query(term: list[Any]) -> bytes:
    return orjson.dumps([1, term, {}])
