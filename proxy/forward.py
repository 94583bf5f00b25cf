"""Queries to a server that does not lead: sent on to the leader, their batches brought back (decision 4).

One rule: a query is sent on only when nothing of it was done here, and is sent at most once: when the link breaks
while it is under way, its driver is told that it may have been done, unless it only reads; then it is sent again.

Messages between two servers (MessagePack arrays; `number` is the asking server's, per query):

    asking ─► leading   [START, number, user, host, port, flags, body]
                        [MORE, number]              the next batch of an open stream
                        [STOP, number]              the driver wants no more
    leading ─► asking   [ANSWER, number, kind, items, notes, profile, is open]
                        [ERROR, number, class, message, path]
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any, Final, Protocol
from uuid import UUID, uuid5

import msgspec
import orjson

from model.errors import (
    NotLeader,
    ReqlError,
    ReqlOpFailedError,
    ReqlOpIndeterminateError,
    ReqlResourceLimitError,
)
from proxy.answers import Answer, Cursor, Done, Evaluator, Fibers, Interrupted, Promised, QueryContext, WaitTimeout
from proxy.clients import RunningQuery
from proxy.forward_errors import error_from, error_parts
from proxy.frames import as_atom
from proxy.reql.ids import Term
from proxy.reql.registry import WRITES_OR_META
from proxy.session import KILLED

log = logging.getLogger("rewinddb.proxy")

START, MORE, STOP, ANSWER, ERROR = range(5)
RETURNS_EMPTY: Final = 1
NOREPLY: Final = 2

QUERIES: Final = UUID("0d9b0b60-6a0e-4a3f-8a8e-2f9f6c0f5f5c")  # what ids of queries for others are made with

LEADER_WAIT_S: Final = 10.0  # how long a query waits for somebody to lead
LOOK_AGAIN_S: Final = 0.05

MAY_WRITE: Final = frozenset(int(term) for term in WRITES_OR_META | {Term.FOR_EACH, Term.HTTP})


class Courier(Protocol):
    """The links to the other servers, as far as queries use them. max_bytes: of what they can send at once."""

    max_bytes: int

    def send(self, member: int, payload: bytes) -> bool:
        """Sends to a member; False if that cannot be now, or its answer could not come back."""


class Work(Protocol):
    """Runs work in fibers (`proxy.fibers.FiberPool`)."""

    def run(self, work: Callable[[Any], Any], item: Any, done: Callable[[Any, Any, Any], None]) -> None: ...
    def interrupt(self, item: Any, message: str) -> None: ...
    def wait_for(self, begin: Callable[[Done], object], timeout_s: float | None = None) -> Any: ...


class LinkLost(Exception):
    """The link broke while a query was under way."""


class Forwarder:
    """The Evaluator port of a server in a cluster: runs queries here where that can be, else on the leader.

    leader: the member that leads as far as known, or None. pool: runs what other servers ask of this one.
    """

    def __init__(
        self,
        local: Evaluator,
        courier: Courier,
        me: int,
        leader: Callable[[], int | None],
        pool: Work,
        seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        self.seconds = seconds
        self._local = local
        self.glance = local.glance
        self._courier = courier
        self._me = me
        self._leader = leader
        self._pool = pool
        self._numbers = 0
        self._asked: dict[int, _Asked] = {}
        self._serving: dict[tuple[int, int], _Served] = {}
        self._late: set[_Late] = set()

    # -- for drivers

    def start(self, body: bytes, context: QueryContext) -> Answer | Promised:
        """Runs a query, wherever that can be; raises ReqlError."""
        try:
            return self._local.start(body, context)
        except NotLeader:
            pass
        waited_s = 0.0
        while True:
            leader = self._leader()
            try:
                if leader == self._me:
                    return self._local.start(body, context)
                if leader is not None:
                    return self._ask(leader, body, context)
            except NotLeader:
                pass  # the lead moved; nothing was done
            except LinkLost:
                if may_write(body):
                    raise ReqlOpIndeterminateError(
                        "The server that leads was lost while it ran this query.  It may or may not have been done.", ()
                    ) from None
            if waited_s >= LEADER_WAIT_S:
                raise ReqlOpFailedError("No server leads at the moment: a majority cannot be reached.", ())
            _rest(context.fibers, LOOK_AGAIN_S)
            waited_s += LOOK_AGAIN_S

    def _ask(self, leader: int, body: bytes, context: QueryContext) -> Answer:
        self._numbers += 1
        asked = _Asked(self, leader, self._numbers, context)
        flags = RETURNS_EMPTY * context.returns_empty_batches | NOREPLY * context.noreply
        host, port = context.address
        return asked.exchange((START, asked.number, context.user, host, port, flags, body))

    # -- for links

    def receive(self, member: int, payload: bytes) -> None:
        """A message from another server. Raises msgspec.DecodeError for what is none."""
        message = msgspec.msgpack.decode(payload)
        kind, number = message[0], message[1]
        if kind in (ANSWER, ERROR):
            asked = self._asked.get(number)
            if asked is not None and asked.leader == member:
                asked.take(message)
        elif kind == START:
            self._serve(member, message)
        else:
            served = self._serving.get((member, number))
            if served is not None:
                served.go_on() if kind == MORE else served.stop()

    # -- for the system tables

    def running(self) -> list[RunningQuery]:
        """What runs or is an open stream here for drivers of other servers."""
        return [served.described() for served in self._serving.values()]

    def kill(self, query_id: str) -> bool:
        """Ends a query of `running`; False if there is none of this id (any more)."""
        for served in list(self._serving.values()):
            if served.query_id == query_id:
                served.kill(KILLED)
                return True
        return False

    # -- for links, when they break

    def lost(self, member: int) -> None:
        """The link to or from a member broke: what it runs for us is lost, what we run for it is of no use any more.

        An answer that was on its way may be lost, too, and nobody would send it again.
        """
        for asked in [asked for asked in self._asked.values() if asked.leader == member]:
            asked.break_off()
        for key in [key for key in self._serving if key[0] == member]:
            self._serving[key].stop()
        for late in [late for late in self._late if late.member == member]:
            self._late.discard(late)

    def answer(self, member: int, reply: tuple[Any, ...]) -> None:
        """Sends an answer; if the link takes nothing at the moment, as soon as it does."""
        payload = msgspec.msgpack.encode(reply)
        if len(payload) > self._courier.max_bytes:
            error = ReqlResourceLimitError(
                f"The answer has {len(payload)} bytes; servers send each other at most {self._courier.max_bytes}."
            )
            payload = msgspec.msgpack.encode((ERROR, reply[1], *error_parts(error)))
        if not self._courier.send(member, payload):
            late = _Late(self, member, payload)
            self._late.add(late)
            self._pool.run(_Late.send, late, _Late.sent)

    @property
    def asked_so_far(self) -> int:
        """How many queries other servers were asked."""
        return self._numbers

    def give_up(self, member: int, asked_so_far: int) -> None:
        """A member leads no more and has not answered for a while: what waits for it since then waits in vain.

        asked_so_far: as it was when the member lost the lead. It may have led again since, and be at work.
        """
        asked_of = [asked for asked in self._asked.values() if asked.leader == member and asked.number <= asked_so_far]
        for asked in asked_of:
            if asked.is_waiting:
                asked.break_off()

    def _serve(self, member: int, message: list[Any]) -> None:
        _, number, user, host, port, flags, body = message
        context = QueryContext(
            user,
            (host, port),
            -member,
            self._pool,  # type: ignore[arg-type]
            returns_empty_batches=bool(flags & RETURNS_EMPTY),
            noreply=bool(flags & NOREPLY),
        )
        served = _Served(self, member, number, body, context)
        self._serving[member, number] = served
        self._pool.run(_Served.begin, served, _Served.finished)


class _Asked:
    """A query that the leader runs for us, and the cursor of its stream."""

    def __init__(self, forwarder: Forwarder, leader: int, number: int, context: QueryContext) -> None:
        self._forwarder = forwarder
        self.leader = leader
        self.number = number
        self._context = context
        self._done: Done | None = None
        self._is_open = False
        forwarder._asked[number] = self

    def exchange(self, message: tuple[Any, ...]) -> Answer:
        """Sends a message and waits for its answer. Raises LinkLost, NotLeader or the query's ReqlError."""

        def begin(done: Done) -> None:
            self._done = done
            if not self._forwarder._courier.send(self.leader, msgspec.msgpack.encode(message)):
                done(NotLeader("there is no link to the server that leads"))

        try:
            answer = self._context.fibers.wait_for(begin)
        except (Interrupted, ReqlError, LinkLost, NotLeader):
            self.close()
            raise
        finally:
            self._done = None
        kind, items, notes, profile, self._is_open = answer
        if not self._is_open:
            self._forget()
        cursor: Cursor | None = self if self._is_open else None
        return Answer(kind, items, notes, profile, cursor)

    def next_batch(self) -> Answer:
        """The next batch of the stream (the Cursor port)."""
        try:
            return self.exchange((MORE, self.number))
        except (LinkLost, NotLeader):
            raise ReqlOpFailedError("The server that held this stream was lost.", ()) from None

    def close(self) -> None:
        """Ends the stream on the leader, if it is still there."""
        if self.number in self._forwarder._asked:
            self._forget()
            self._forwarder._courier.send(self.leader, msgspec.msgpack.encode((STOP, self.number)))

    def take(self, message: list[Any]) -> None:
        """An answer came."""
        done, self._done = self._done, None
        if done is None:
            return
        if message[0] == ANSWER:
            done(None, message[2:])
        else:
            done(error_from(*message[2:]))

    @property
    def is_waiting(self) -> bool:
        return self._done is not None

    def break_off(self) -> None:
        self._forget()
        done, self._done = self._done, None
        if done is not None:
            done(LinkLost())

    def _forget(self) -> None:
        self._forwarder._asked.pop(self.number, None)


class _Served:
    """A query that this server runs for another one."""

    def __init__(self, forwarder: Forwarder, member: int, number: int, body: bytes, context: QueryContext) -> None:
        self._forwarder = forwarder
        self._member = member
        self._number = number
        self._body = body
        self._context = context
        self._cursor: Cursor | None = None
        self._is_stopped = False
        self._refusal: NotLeader | ReqlError | None = None
        self._began_s = forwarder.seconds()
        self.fiber: Any = None  # the pool keeps the running fiber here

    @property
    def query_id(self) -> str:
        return str(uuid5(QUERIES, f"{self._member} {self._number}"))

    def described(self) -> RunningQuery:
        """For the table `jobs`."""
        context = self._context
        spent_s = self._forwarder.seconds() - self._began_s
        return RunningQuery(self.query_id, context.connection_id, context.user, context.address, spent_s, self._body)

    def kill(self, message: str) -> None:
        """Ends it; its driver is told where it waits for an answer, or when it asks for more."""
        self._refusal = ReqlOpIndeterminateError(message)
        if self.fiber is not None:
            self._forwarder._pool.interrupt(self, message)
        elif self._cursor is not None:
            cursor, self._cursor = self._cursor, None
            cursor.close()

    def begin(self) -> Answer | None:
        try:
            answer = self._forwarder._local.start(self._body, self._context)
        except NotLeader as error:
            self._refusal = error  # kept from the pool, which would make it an error for drivers
            return None
        assert isinstance(answer, Answer)  # this context takes no promises
        return answer

    def _more(self) -> Answer:
        assert self._cursor is not None
        return self._cursor.next_batch()

    def go_on(self) -> None:
        if self._cursor is not None and self.fiber is None:
            self._forwarder._pool.run(_Served._more, self, _Served.finished)
        elif self.fiber is None:
            self.finished(None, None)  # killed meanwhile

    def stop(self) -> None:
        self._is_stopped = True
        if self.fiber is not None:
            self._forwarder._pool.interrupt(self, "The driver wants no more.")
        else:
            self._end()

    def finished(self, answer: Answer | None, error: BaseException | None) -> None:
        """A run ended: its outcome goes back, unless nobody waits for it any more."""
        if answer is not None and answer.cursor is not None:
            self._cursor = answer.cursor
        if self._is_stopped or error is not None or answer is None or answer.cursor is None:
            self._end()
        if self._is_stopped:
            return
        error = self._refusal if self._refusal is not None else error
        if error is not None:
            name, message, path = error_parts(error)
            reply: tuple[Any, ...] = (ERROR, self._number, name, message, path)
        else:
            assert answer is not None
            answer = as_atom(answer)  # a member of an older version may have asked
            is_open = answer.cursor is not None
            reply = (ANSWER, self._number, answer.kind, answer.items, answer.notes, answer.profile, is_open)
        self._forwarder.answer(self._member, reply)

    def _end(self) -> None:
        self._forwarder._serving.pop((self._member, self._number), None)
        cursor, self._cursor = self._cursor, None
        if cursor is not None:
            cursor.close()


class _Late:
    """An answer that the link did not take: it is full, or is just being made. Without it the other side would wait."""

    def __init__(self, forwarder: Forwarder, member: int, payload: bytes) -> None:
        self._forwarder = forwarder
        self.member = member
        self._payload = payload
        self.fiber: Any = None

    def send(self) -> None:
        """Tries again and again, until the link breaks."""
        forwarder = self._forwarder
        while self in forwarder._late:
            _rest(forwarder._pool, LOOK_AGAIN_S)
            if self in forwarder._late and forwarder._courier.send(self.member, self._payload):
                return

    def sent(self, _result: None, error: BaseException | None) -> None:
        self._forwarder._late.discard(self)


def may_write(body: bytes) -> bool:
    """Whether a query has a term that writes or changes anything, or reaches out."""
    stack = [orjson.loads(body)[1]]
    while stack:
        raw = stack.pop()
        if raw.__class__ is dict:
            stack += raw.values()
        elif raw.__class__ is list and raw:
            if raw[0] in MAY_WRITE:
                return True
            for part in raw[1:]:
                if part.__class__ is list:
                    stack += part
                elif part.__class__ is dict:
                    stack += part.values()
    return False


def _rest(fibers: Fibers | Work, seconds: float) -> None:
    try:
        fibers.wait_for(lambda done: None, seconds)
    except WaitTimeout:
        return
