"""Two servers side by side: the same rows in both, the same query to both, and whether the answers are the same.

One rule: answers are the same if a driver could not tell them apart, but for identifiers and the order of grouped rows.
"""

from __future__ import annotations

import random
import re
from typing import Any, Final

import orjson
from rethinkdb import r

from integration.beside_rethinkdb.queries import DATABASE, Queries, term
from integration.raw_driver import CONTINUE, RawDriver
from proxy.reql.ids import Term

PARTIAL: Final = 3
INTERNAL_ERROR: Final = 1_000_000
DEFAULT_DATABASE: Final = {"db": term("DB", DATABASE)}
_UUID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_ROW_IN_MESSAGE: Final = re.compile(r"(in object|from object|in):\\n\{.*", re.DOTALL)


def prepare(port: int) -> None:
    """Makes the database `beside` anew, with the rows and indexes that the queries know."""
    dice = random.Random(7)
    rows = []
    for at in range(24):
        row: dict[str, Any] = {"id": at, "k": at % 3, "m": [at, f"x{at}", None, True, [at], {"q": at}][at % 6]}
        row["s"] = dice.choice(["foo", "bar", "Ba z", "é", "", "12", "a,b"]) + ("" if at % 2 else str(at % 4))
        row["a"] = [dice.randint(0, 4) for _ in range(at % 4)]
        row["t"] = r.epoch_time(1.4e9 + at * 86400.5 * (1 if at % 2 else -300))
        if at % 5:
            row["n"] = dice.choice([at * 1.5, -at, at, 0, 2**40 + at])
        if at % 4:
            row["b"] = [True, False, None][at % 3]
        if at % 3 != 2:
            row["o"] = {"x": at % 2, "y": f"y{at % 3}"} if at % 2 else {"x": at % 4, "z": {"w": at}}
        if at % 2:
            row["p"] = r.point(at % 7, at % 5)
        if at % 8 == 0:
            row["bin"] = r.binary(bytes([at, 255, 65]))
        rows.append(row)
    with r.connect(port=port) as conn:
        if DATABASE in r.db_list().run(conn):
            r.db_drop(DATABASE).run(conn)
        r.db_create(DATABASE).run(conn)
        conn.use(DATABASE)
        table = r.table("t")
        for name in ("t", "empty"):
            r.table_create(name).run(conn)
        table.insert(rows).run(conn)
        for name in ("k", "n", "s"):
            table.index_create(name).run(conn)
        table.index_create("a_multi", r.row["a"], multi=True).run(conn)
        table.index_create("k_n", [r.row["k"], r.row["n"]]).run(conn)
        table.index_create("p", geo=True).run(conn)
        table.index_wait().run(conn)


class Side:
    """One of the two servers. Its connection is made anew after it was lost."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._driver = RawDriver(port)

    def answer(self, query: Any) -> dict[str, Any]:
        """The whole answer: a stream is read to its end. {"lost": ...} if the server went away over it."""
        try:
            response = self._ask(orjson.dumps([1, query, DEFAULT_DATABASE]))
            rows = list(response["r"])
            while response["t"] == PARTIAL:
                response = self._ask(CONTINUE)
                rows += response["r"]
        except OSError as error:
            self._driver.close()
            self._driver = RawDriver(self._port)
            return {"lost": repr(error)}
        return {**response, "r": rows}

    def _ask(self, body: bytes) -> dict[str, Any]:
        response: dict[str, Any] = orjson.loads(self._driver.ask(body, 1))
        return response


def query_of(seed: int) -> Any:
    """The query of a seed."""
    return Queries(seed, wrong=(0.0, 0.02, 0.06)[seed % 3]).query()


def are_the_same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two answers are the same."""
    if "lost" in one or "lost" in other:
        return False
    plain, others = _plain(one), _plain(other)
    if plain == others or _loose(one) == _loose(other):
        return True
    # An error shows one row of several that have it: which one is chance where shards work side by side.
    is_error = "e" in one and one.get("e") == other.get("e") and one.get("b") == other.get("b")
    return is_error and _ROW_IN_MESSAGE.sub("", plain) == _ROW_IN_MESSAGE.sub("", others)


def _plain(answer: dict[str, Any]) -> str:
    return _UUID.sub("UUID", orjson.dumps(answer, option=orjson.OPT_SORT_KEYS).decode())


def _loose(value: Any) -> Any:
    """Without the order of rows, which groups of unordered rows do not have."""
    if isinstance(value, dict):
        return tuple(sorted((key, repr(_loose(item))) for key, item in value.items()))
    if isinstance(value, list):
        return tuple(sorted(repr(_loose(item)) for item in value))
    return value


def text_of(raw: Any) -> str:
    """A query for people."""
    if isinstance(raw, dict):
        return "{" + ", ".join(f"{key}: {text_of(value)}" for key, value in raw.items()) + "}"
    if not isinstance(raw, list):
        return repr(raw)
    name, arguments = Term(raw[0]), raw[1] if len(raw) > 1 else []
    if name is Term.VAR:
        return f"v{arguments[0]}"
    if name is Term.FUNC:
        return f"({', '.join(f'v{number}' for number in arguments[0][1])} => {text_of(arguments[1])})"
    parts = [text_of(argument) for argument in arguments]
    if name is Term.MAKE_ARRAY:
        return f"[{', '.join(parts)}]"
    parts += [f"{key}={text_of(value)}" for key, value in (raw[2] if len(raw) > 2 else {}).items()]
    return f"{name.name.lower()}({', '.join(parts)})"
