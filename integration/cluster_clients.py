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
from math import inf

from rethinkdb import errors, r

from tests.sim.linearizability import Act, Operation, check

OPERATIONS_PER_KEY = 60
LOST = (errors.ReqlDriverError, errors.ReqlTimeoutError, errors.ReqlOpIndeterminateError, OSError, EOFError)
DB = r.db("test")


def prepare(conn):
    for name in ("registers", "counters", "sets"):
        DB.table_create(name).run(conn)
        DB.table(name).wait().run(conn)
    DB.table("counters").insert([{"id": n, "n": 0} for n in range(16)]).run(conn)


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
        self.counted = defaultdict(int)
        self.maybe_counted = defaultdict(int)

    def check(self, conn):
        """Holds everything against what the database says in the end; raises AssertionError."""
        assert not self.problems, self.problems[:3]
        for key, history in self.histories.items():
            row = DB.table("registers", read_mode="majority").get(key).run(conn)
            now = time.monotonic()
            last = Operation(Act.READ, now, returned=now + 1, result=row and row["v"], client="the end")
            verdict = check([*history, last])
            assert verdict.is_linearizable, f"register {key}: {verdict}"
        found = {row["id"] for row in DB.table("sets", read_mode="majority").run(conn)}
        assert self.added <= found, f"acknowledged and lost: {sorted(self.added - found)[:5]}"
        assert not self.not_added & found, f"said not to be done, but done: {sorted(self.not_added & found)[:5]}"
        for number, row in enumerate(DB.table("counters", read_mode="majority").order_by("id").run(conn)):
            low = self.counted[number]
            assert low <= row["n"] <= low + self.maybe_counted[number], f"counter {number}: {row['n']}, counted {low}"

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
        self.keys = [f"{books.name}-{number % 2}-{n}" for n in range(3)]  # shared by half of the clients

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
        self.dice.choices((self.register, self.add, self.count), (8, 1, 1))[0]()

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
        key = self._key()
        row = DB.table("registers", read_mode=self.dice.choice(("single", "majority"))).get(key)
        act = self.dice.choices((Act.READ, Act.WRITE, Act.CAS), (4, 2, 4))[0]
        operation = Operation(act, time.monotonic(), client=self.name)
        if act is Act.READ:
            query = row["v"].default(None)
        elif act is Act.WRITE:
            operation.value = next(self.books.values)
            query = DB.table("registers").insert({"id": key, "v": operation.value}, conflict="replace")
        else:
            operation.value = next(self.books.values)
            operation.expected = self._likely(key)
            query = (
                DB.table("registers")
                .get(key)
                .update(r.branch(r.row["v"].eq(operation.expected), {"v": operation.value}, {}))
            )
        answer, outcome = self.ask(query)
        if outcome is False or (outcome is None and act is Act.READ):
            return
        operation.returned = time.monotonic() if outcome else inf
        if act is Act.READ:
            operation.result = answer
        elif act is Act.CAS:
            operation.result = bool(outcome) and answer["replaced"] == 1
        with self.books.lock:
            self.books.histories[key].append(operation)

    def _key(self):
        at = self.dice.randrange(len(self.keys))
        with self.books.lock:
            while len(self.books.histories[self.keys[at]]) >= OPERATIONS_PER_KEY:
                self.keys[at] += "'"
            return self.keys[at]

    def _likely(self, key):
        """A value that the register may hold now."""
        with self.books.lock:
            recent = [op.value for op in self.books.histories[key][-6:] if op.act is not Act.READ]
        return self.dice.choice(recent) if recent else 0

    def add(self):
        name = f"{self.books.name}-{self.number}-{next(self.books.values)}"
        _, outcome = self.ask(DB.table("sets").insert({"id": name}))
        with self.books.lock:
            if outcome:
                self.books.added.add(name)
            elif outcome is False:
                self.books.not_added.add(name)

    def count(self):
        _, outcome = self.ask(DB.table("counters").get(self.number).update({"n": r.row["n"] + 1}))
        with self.books.lock:
            if outcome:
                self.books.counted[self.number] += 1
            elif outcome is None:
                self.books.maybe_counted[self.number] += 1


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
