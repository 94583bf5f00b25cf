"""Two servers side by side: the same rows in both, the same query to both, and whether the answers are the same.

One rule: answers are the same if a driver could not tell them apart, but for identifiers and the order of grouped rows.
"""

from __future__ import annotations

import random
import re
import time
from typing import Any, Final

import orjson
from rethinkdb import r

from integration.beside_rethinkdb.queries import DATABASE, WRITTEN, WRITTEN_ROWS, Queries, array, term
from integration.raw_driver import CONTINUE, SERVER_INFO, RawDriver
from proxy.reql.ids import Term

PARTIAL: Final = 3
INTERNAL_ERROR: Final = 1_000_000
DEFAULT_DATABASE: Final = {"db": term("DB", DATABASE)}
WRITES: Final = 3
RESTART_S: Final = 20.0
_UUID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_HOOK: Final = re.compile(r'"function":\{[^}]*\}')
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
        r.table_create("empty").run(conn)
        for name in ("t", "w"):
            r.table_create(name).run(conn)
            table = r.table(name)
            for index in ("k", "n", "s"):
                table.index_create(index).run(conn)
            table.index_create("a_multi", r.row["a"], multi=True).run(conn)
            table.index_create("k_n", [r.row["k"], r.row["n"]]).run(conn)
            table.index_create("p", geo=True).run(conn)
            table.index_wait().run(conn)
        r.table("t").insert(rows).run(conn)


class Side:
    """One of the two servers. Its connection is made anew after it was lost."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._driver = RawDriver(port)
        self.name: str = self._ask(SERVER_INFO)["r"][0]["name"]

    def nameless(self, answer: dict[str, Any]) -> dict[str, Any]:
        """An answer without the server's name."""
        text = orjson.dumps(answer).decode()
        for quote in ('"', "`", '\\"'):
            text = text.replace(f"{quote}{self.name}{quote}", f"{quote}SERVER{quote}")
        found: dict[str, Any] = orjson.loads(text)
        return found

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
            self._driver = _come_back(self._port)
            return {"lost": repr(error)}
        return {**response, "r": rows}

    def _ask(self, body: bytes) -> dict[str, Any]:
        response: dict[str, Any] = orjson.loads(self._driver.ask(body, 1))
        return response


_FEW: Final = term("LIMIT", term("ORDER_BY", term("TABLE", "t"), index="id"), 8)
AS_BEFORE: Final = array(
    term("SET_WRITE_HOOK", WRITTEN, None),
    term("DELETE", WRITTEN, durability="soft"),
    term("INSERT", WRITTEN, _FEW, durability="soft"),
)
"""Gives `w` the first rows of `t`."""
STATE: Final = array(
    term("COERCE_TO", WRITTEN_ROWS, "array"),
    *(
        term("COERCE_TO", term("BRACKET", term("ORDER_BY", WRITTEN, index=index), "id"), "array")
        for index in ("n", "a_multi", "k_n")
    ),
)
"""All that is in `w`, and what its indexes make of that."""


def writes_of(seed: int) -> list[Any]:
    """The queries of a seed that change the table `w`, which begins `AS_BEFORE`; after each comes `STATE`."""
    queries = Queries(seed, wrong=(0.0, 0.02, 0.06)[seed % 3])
    return [AS_BEFORE, *(query for _ in range(WRITES) for query in (queries.write(), STATE))]


def _come_back(port: int) -> RawDriver:
    """A new connection, also to a server that is being started again (random queries end RethinkDB now and then)."""
    gives_up_s = time.monotonic() + RESTART_S
    while True:
        try:
            return RawDriver(port)
        except OSError:
            if time.monotonic() > gives_up_s:
                raise
            time.sleep(0.1)


def query_of(seed: int) -> Any:
    """The query of a seed."""
    return Queries(seed, wrong=(0.0, 0.02, 0.06)[seed % 3]).query()


def are_the_same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two answers are the same."""
    if "lost" in one or "lost" in other:
        return False
    text, others = plain(one), plain(other)
    if text == others or _loose(orjson.loads(text)) == _loose(orjson.loads(others)):
        return True
    # An error shows one row of several that have it: which one is chance where shards work side by side.
    is_error = "e" in one and one.get("e") == other.get("e") and one.get("b") == other.get("b")
    return is_error and _ROW_IN_MESSAGE.sub("", text) == _ROW_IN_MESSAGE.sub("", others)


def plain(answer: Any) -> str:
    """As text, without what is chance, and what a write hook looks like inside."""
    text = orjson.dumps(answer, option=orjson.OPT_SORT_KEYS).decode()
    return _HOOK.sub('"function":0', _UUID.sub("UUID", text))


def _loose(value: Any) -> Any:
    """Without the order of rows, which groups of unordered rows do not have, and without which error of a write's
    several was the first."""
    if isinstance(value, dict):
        has_several = value.get("errors", 0) > 1 if isinstance(value.get("errors", 0), int) else False
        items = ((key, "" if has_several and key == "first_error" else item) for key, item in value.items())
        return tuple(sorted((key, repr(_loose(item))) for key, item in items))
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
