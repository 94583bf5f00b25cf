"""Random changefeeds on both servers while rows change, and what they tell differently.

One rule: what is compared is what was told about the same writes: the next write waits until both have told as much, or
one of them has had its time. The order of what one write brings is of no matter, as shards tell theirs side by side.
"""

from __future__ import annotations

import random
import selectors
import time
from collections import Counter
from typing import Any, Final

import orjson

from integration.beside_rethinkdb.compare import AS_BEFORE, DEFAULT_DATABASE, plain
from integration.beside_rethinkdb.queries import KEYS, WRITTEN, Queries, array, term
from integration.raw_driver import CONTINUE, RawDriver
from proxy.reql.ids import Term

FEEDS: Final = 3
CHANGES: Final = 6
PATIENCE_S: Final = 1.0
QUIET_S: Final = 0.03
STOP: Final = b"[3]"
_PARTIAL: Final = 3
_ASK: Final = 1 << 20


class Program:
    """The feeds of a seed, and the writes that they tell of."""

    def __init__(self, seed: int) -> None:
        self._dice = random.Random(seed)
        self._queries = Queries(seed, wrong=0.0)
        self.feeds = [self._feed() for _ in range(FEEDS)]
        is_ordered = any("LIMIT" in _names(feed) for feed in self.feeds)
        self.writes = [self._write(is_ordered) for _ in range(CHANGES)]

    def _feed(self) -> Any:
        dice = self._dice
        rows, is_limit = self._rows()
        if not is_limit and dice.random() < 0.4:
            rows = self._transformed(rows)
        optargs = {
            name: dice.random() < 0.5
            for name in ("include_initial", "include_types", "include_states", "include_offsets", "squash")
            if dice.random() < (0.1 if name in ("include_offsets", "squash") else 0.4)
        }
        feed = term("CHANGES", rows, **optargs)
        # Of rows that are there before, it is chance which come first.
        return self._transformed(feed) if dice.random() < 0.25 and "include_initial" not in optargs else feed

    def _rows(self) -> tuple[Any, bool]:
        """What is watched, and whether it is the first rows of an order."""
        dice, literal = self._dice, self._queries.literal
        index = dice.choice(("id", "k", "n", "s", "a_multi", "k_n"))
        bounds = literal("bound"), literal("bound")
        kind = dice.choice(("table", "table", "get", "get_all", "get_all", "between", "filter", "limit", "limit"))
        if kind == "get":
            return term("GET", WRITTEN, dice.choice(KEYS)), False
        if kind == "get_all":
            keys = [dice.choice(KEYS) for _ in range(dice.randint(1, 3))]
            return term("GET_ALL", WRITTEN, *keys, index=index), False
        if kind == "between":
            return term("BETWEEN", WRITTEN, *bounds, index=index), False
        if kind == "filter":
            return term("FILTER", WRITTEN, {dice.choice(("k", "n", "b")): literal("small")}), False
        if kind == "limit":
            order = dice.choice((index, term("ASC", index), term("DESC", index)))
            rows = WRITTEN if dice.random() < 0.6 else term("BETWEEN", WRITTEN, *bounds, index=index)
            return term("LIMIT", term("ORDER_BY", rows, index=order), dice.randint(1, 4)), True
        return WRITTEN, False

    def _transformed(self, rows: Any) -> Any:
        dice, row = self._dice, term("VAR", 1)
        field = dice.choice(("id", "k", "n", "new_val"))
        return dice.choice((
            term("PLUCK", rows, "id", field),
            term("WITHOUT", rows, "t", field),
            term("MERGE", rows, {"more": 1}),
            term("HAS_FIELDS", rows, field),
            term("MAP", rows, term("FUNC", array(1), term("BRACKET", row, field))),
            term("FILTER", rows, term("FUNC", array(1), term("GT", term("BRACKET", row, field), 1))),
            term("LIMIT", rows, 3),
            term("UNION", rows, rows),
            term("COUNT", rows),
        ))  # fmt: skip

    def _write(self, is_of_one: bool) -> Any:
        """is_of_one: only one row changes. Of several, which is told first is chance, and so which are the first."""
        dice, key = self._dice, self._dice.choice(KEYS)
        row = {"id": key, **self._queries.row(), "n": self._queries.literal("small"), "k": dice.randint(0, 3)}
        row["id"] = key
        one = term("GET", WRITTEN, key)
        ones = (
            term("INSERT", WRITTEN, row, conflict="replace"),
            term("INSERT", WRITTEN, row, conflict="update"),
            term("UPDATE", one, {"n": self._queries.literal("small")}),
            term("UPDATE", one, {"k": dice.randint(0, 3), "a": self._queries.literal("numbers")}),
            term("DELETE", one),
            term("REPLACE", one, row),
        )
        many = (term("UPDATE", WRITTEN, {"n": self._queries.literal("small")}), self._queries.write())
        return dice.choice(ones if is_of_one else (*ones, *many))


def _names(raw: Any) -> set[str]:
    """The terms of a query."""
    if isinstance(raw, dict):
        return set().union(*map(_names, raw.values()))
    if isinstance(raw, list) and raw and isinstance(raw[1], list):
        return {Term(raw[0]).name}.union(*map(_names, raw[1]))
    return set()


class Listener:
    """One connection to one server, and what its feeds have told."""

    def __init__(self, port: int) -> None:
        self._driver = RawDriver(port)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._driver.socket, selectors.EVENT_READ)
        self._is_open: set[int] = set()
        self._answer: Any = None
        self.told: dict[int, list[str]] = {}

    def open(self, feeds: list[Any]) -> None:
        """Feeds are known by their number from here on."""
        self.told = {number: [] for number in range(len(feeds))}
        self._is_open = set(self.told)
        for number, feed in enumerate(feeds):
            self._driver.say(number, _start(feed))

    def ask(self, query: Any) -> None:
        """Returns when it is answered."""
        self._answer = None
        self._driver.say(_ASK, _start(query))
        while self._answer is None:
            self.hear(PATIENCE_S)

    def hear(self, most_s: float) -> bool:
        """Takes what has come, or comes within that time; whether anything did."""
        if not self._selector.select(most_s):
            return False
        for number, body in self._driver.heard():
            response = orjson.loads(body)
            if number == _ASK:
                self._answer = response
                continue
            told = self.told[number]
            if "e" in response:
                told.append(plain(response))
            else:
                if not told:  # the first answer tells what kind of a feed it is
                    told.append(f"notes {sorted(response.get('n', []))}")
                told += [plain(row) for row in response["r"]]
            if response["t"] == _PARTIAL:
                self._driver.say(number, CONTINUE)
            else:
                self._is_open.discard(number)
                told.append(f"ends with {response['t']}")
        return True

    def close(self) -> None:
        """Stops the feeds that are still open."""
        for number in list(self._is_open):
            self._driver.say(number, STOP)
        while self._is_open and self.hear(PATIENCE_S):
            pass
        self._selector.close()
        self._driver.close()


def _start(query: Any) -> bytes:
    return orjson.dumps([1, query, DEFAULT_DATABASE])


def difference(program: Program, ports: tuple[int, int]) -> tuple[int, list[list[str]]] | None:
    """Runs a program on both: the first feed that tells something else and what it told, or None."""
    listeners = [Listener(port) for port in ports]
    try:
        for listener in listeners:
            listener.ask(AS_BEFORE)
        for listener in listeners:
            listener.open(program.feeds)
        for listener in listeners:  # nobody says when a feed has begun to listen
            while listener.hear(QUIET_S):
                pass
        for write in program.writes:
            for listener in listeners:
                listener.ask(write)
            if _settle(listeners) is not None:
                break
        for listener in listeners:
            while listener.hear(QUIET_S):
                pass
        return _differ(listeners)
    finally:
        for listener in listeners:
            listener.close()


def _settle(listeners: list[Listener]) -> tuple[int, list[list[str]]] | None:
    """Waits until both have told the same, at most for `PATIENCE_S`; what they tell differently then."""
    ends = time.monotonic() + PATIENCE_S
    found = None
    while time.monotonic() < ends:
        for listener in listeners:
            listener.hear(0.005)
        found = _differ(listeners)
        if found is None:
            return None
    return found


def _differ(listeners: list[Listener]) -> tuple[int, list[list[str]]] | None:
    one, other = listeners
    for number in one.told:
        told = [sorted(one.told[number]), sorted(other.told[number])]
        if told[0] != told[1]:
            more, others = Counter(told[0]), Counter(told[1])
            return number, [list((more - others).elements()), list((others - more).elements())]
    return None
