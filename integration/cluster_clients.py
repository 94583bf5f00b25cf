"""Clients that talk to any server of a cluster with the official driver, and keep books of what came of it.

What a driver is told decides what the books say: an answer is an answer; `ReqlOpFailedError` means surely not done,
and is checked as such; everything else may or may not have been done.
"""

import random
import secrets
import threading
import time
from collections import defaultdict
from itertools import count

from rethinkdb import errors, r

from tests.sim.linearizability import Act, Operation, check

OPERATIONS_PER_KEY = 60
LOST = (errors.ReqlDriverError, errors.ReqlTimeoutError, errors.ReqlOpIndeterminateError, OSError, EOFError)
DB = r.db("test")


TABLES = ("registers", "counters", "sets", "rows")


def prepare(conn):
    for name in TABLES:
        DB.table_create(name).run(conn)
        DB.table(name).wait().run(conn)


def bits(members):
    """A set of small numbers as the bits of one."""
    return sum(1 << member for member in members)


START = {"registers": None, "counters": 0, "sets": 0}
READS = {
    "registers": lambda row: row and row["v"],
    "counters": lambda row: row["n"] if row else 0,
    "sets": lambda row: bits(row["members"]) if row else 0,
}
"""What an object of each table holds, by its row."""


class Books:
    """What all clients of a run saw."""

    def __init__(self):
        self.lock = threading.Lock()
        self.name = secrets.token_hex(3)
        self.histories = defaultdict(list)
        self.values = count(1)
        self.done = 0
        self.failed = 0
        self.unknown = 0
        self.problems = []
        self.added = set()
        self.not_added = set()

    def check(self, conn):
        """Holds everything against what the database says in the end; raises AssertionError."""
        assert not self.problems, self.problems[:3]
        for (table, key), history in self.histories.items():
            now = time.monotonic()
            held = READS[table](DB.table(table, read_mode="majority").get(key).run(conn))
            last = Operation(Act.READ, now, returned=now + 1, result=held, client="the end")
            verdict = check([*history, last], START[table])
            assert verdict.is_linearizable, f"{table} {key}: {verdict}"
        found = {row["id"] for row in DB.table("rows", read_mode="majority").run(conn)}
        assert self.added <= found, f"acknowledged and lost: {sorted(self.added - found)[:5]}"
        assert not self.not_added & found, f"said not to be done, but done: {sorted(self.not_added & found)[:5]}"

    def __str__(self):
        return f"{self.done} operations done, {self.failed} surely not, {self.unknown} unknown"


class Client(threading.Thread):
    """One client with dice of its own: goes to another server whenever one fails it."""

    def __init__(self, number, members, books, seed):
        super().__init__(name=f"client {number}", daemon=True)
        self.number = number
        self.members = members
        self.books = books
        self.dice = random.Random(f"{seed} {number}")
        self.ended = threading.Event()
        self.conn = None
        # Shared by half of the clients: a few objects of each table, and the next ones once their histories are long.
        self.generations = {table: [0, 0, 0] for table in START}

    def run(self):
        while not self.ended.is_set():
            try:
                if self.conn is None:
                    member = self.dice.choice(self.members)
                    self.conn = r.connect(host="127.0.0.1", port=member.driver_port, timeout=5)
                self.step()
                if self.dice.random() < 0.01:
                    self.close()
            except (errors.ReqlDriverError, errors.ReqlTimeoutError, OSError):
                self.close()
                self.ended.wait(0.05)
            except Exception as error:
                self.books.problems.append(repr(error))
                return
        self.close()

    def close(self):
        conn, self.conn = self.conn, None
        if conn is not None:
            try:
                conn.close(noreply_wait=False)
            except (errors.ReqlDriverError, OSError):
                return

    def step(self):
        self.dice.choices((self.register, self.count, self.collect, self.add), (6, 2, 2, 1))[0]()

    def ask(self, query):
        """(answer, what became of it): True for done, False for surely not, None for unknown."""
        try:
            answer = query.run(self.conn)
        except errors.ReqlOpFailedError:
            with self.books.lock:
                self.books.failed += 1
            return None, False
        except LOST as error:
            with self.books.lock:
                self.books.unknown += 1
            if not isinstance(error, errors.ReqlOpIndeterminateError):
                self.close()
            return None, None
        with self.books.lock:
            self.books.done += 1
        if isinstance(answer, dict) and answer.get("errors"):
            raise AssertionError(answer)
        return answer, True

    def register(self):
        key = self._key("registers")
        row = DB.table("registers").get(key)
        act = self.dice.choices((Act.READ, Act.WRITE, Act.CAS), (4, 2, 4))[0]
        if act is Act.READ:
            self._read("registers", key)
        elif act is Act.WRITE:
            value = next(self.books.values)
            query = DB.table("registers").insert({"id": key, "v": value}, conflict="replace")
            self._do("registers", key, act, query, lambda answer: None, value)
        else:
            value, expected = next(self.books.values), self._likely(key)
            query = row.update(r.branch(r.row["v"].eq(expected), {"v": value}, {}))
            self._do("registers", key, act, query, lambda answer: answer["replaced"] == 1, value, expected)

    def count(self):
        key = self._key("counters")
        if self.dice.random() < 0.4:
            self._read("counters", key)
            return
        changed = r.row.default({"id": key, "n": 0}).merge(lambda row: {"n": row["n"] + 1})
        self._change("counters", key, Act.ADD, changed, 1)

    def collect(self):
        key = self._key("sets")
        act = self.dice.choice((Act.READ, Act.INSERT, Act.INSERT, Act.DELETE))
        if act is Act.READ:
            self._read("sets", key)
            return
        member = self.dice.randrange(8)
        members = r.row["members"].default([])
        members = members.set_insert(member) if act is Act.INSERT else members.set_difference([member])
        self._change("sets", key, act, {"id": key, "members": members}, 1 << member)

    def _read(self, table, key):
        row = DB.table(table, read_mode=self.dice.choice(("single", "majority"))).get(key)
        self._do(table, key, Act.READ, row, READS[table])

    def _change(self, table, key, act, changed, value):
        """A write whose answer says what the object holds then."""
        query = DB.table(table).get(key).replace(changed, return_changes="always")
        self._do(table, key, act, query, lambda answer: READS[table](answer["changes"][0]["new_val"]), value)

    def _do(self, table, key, act, query, result_of, value=None, expected=None):
        """Asks, and enters what came of it; what surely was not done is no part of the history."""
        operation = Operation(act, time.monotonic(), value=value, expected=expected, client=self.name)
        answer, outcome = self.ask(query)
        if outcome is False or (outcome is None and act is Act.READ):
            return
        if outcome:
            operation.returned = time.monotonic()
            operation.result = result_of(answer)
        with self.books.lock:
            self.books.histories[table, key].append(operation)

    def _key(self, table):
        generations = self.generations[table]
        at = self.dice.randrange(len(generations))
        with self.books.lock:
            while True:
                key = f"{self.books.name}-{self.number % 2}-{at}-{generations[at]}"
                if len(self.books.histories[table, key]) < OPERATIONS_PER_KEY:
                    return key
                generations[at] += 1

    def _likely(self, key):
        """A value that the register may hold now."""
        with self.books.lock:
            recent = [op.value for op in self.books.histories["registers", key][-6:] if op.act is not Act.READ]
        return self.dice.choice(recent) if recent else 0

    def add(self):
        name = f"{self.books.name}-{self.number}-{next(self.books.values)}"
        _, outcome = self.ask(DB.table("rows").insert({"id": name}))
        with self.books.lock:
            if outcome:
                self.books.added.add(name)
            elif outcome is False:
                self.books.not_added.add(name)


def run_clients(number, members, seed):
    """Starts clients; (books, a function that ends them)."""
    books = Books()
    clients = [Client(n, members, books, seed) for n in range(number)]
    for client in clients:
        client.start()

    def end():
        for client in clients:
            client.ended.set()
        for client in clients:
            client.join(60)
            assert not client.is_alive(), f"{client.name} hangs"

    return books, end
