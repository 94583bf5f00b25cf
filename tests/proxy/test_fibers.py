"""Fibers: they wait without blocking, take turns, can be interrupted, and tell drivers what went wrong."""

import logging

import greenlet
import pytest
from twisted.internet import defer
from twisted.internet.task import Clock

from model.errors import (
    Corrupt,
    DiskFull,
    LeadershipLost,
    NotLeader,
    Overloaded,
    ReqlInternalError,
    ReqlOpFailedError,
    ReqlOpIndeterminateError,
    ReqlQueryLogicError,
    ReqlResourceLimitError,
    SyncFailed,
)
from proxy.answers import Answer, Interrupted, Promised, WaitTimeout
from proxy.fibers import SLICE_S, WAITING, Failed, FiberPool


class Item:
    fiber = None


class Bench:
    """A pool on a clock that only the test moves. `spin` makes the running fiber use up time."""

    def __init__(self):
        self.reactor = Clock()
        self.now = 100.0
        self.pool = FiberPool(self.reactor, lambda: self.now)
        self.ended = []

    def run(self, work, item=None, **options):
        item = item or Item()
        self.pool.run(lambda item: work(), item, self.done, **options)
        return item

    def done(self, item, result, error):
        assert self.pool.current is None
        self.ended.append(error if error is not None else result)

    def pass_once(self):
        """One pass of the reactor."""
        for call in [call for call in self.reactor.calls if call.time <= self.reactor.seconds()]:
            self.reactor.calls.remove(call)
            call.called = 1
            call.func(*call.args, **call.kw)

    def spin(self, seconds=0.003):
        self.now += seconds


@pytest.fixture
def bench():
    return Bench()


def test_a_run_without_waiting_ends_before_run_returns(bench):
    bench.run(lambda: 5)
    assert bench.ended == [5]
    assert bench.reactor.calls == []


def test_waiting_lets_others_run(bench):
    deferred = defer.Deferred()
    bench.run(lambda: bench.pool.wait(deferred) + 1)
    bench.run(lambda: "other")
    assert bench.ended == ["other"]
    deferred.callback(1)
    assert bench.ended == ["other", 2]


def test_what_has_happened_is_not_waited_for(bench):
    bench.run(lambda: bench.pool.wait(defer.succeed(3)))
    bench.run(lambda: bench.pool.wait_for(lambda done: done(None, 4)))
    assert bench.ended == [3, 4]


def test_a_failure_is_raised_where_it_was_waited_for(bench):
    deferred = defer.Deferred()

    def work():
        try:
            bench.pool.wait(deferred)
        except KeyError as error:
            return error.args

    bench.run(work)
    deferred.errback(KeyError("gone"))
    assert bench.ended == [("gone",)]


def test_the_error_of_a_callback_is_raised(bench):
    begun = []
    bench.run(lambda: bench.pool.wait_for(begun.append))
    begun[0](ReqlQueryLogicError("no"))
    assert [str(error) for error in bench.ended] == ["no"]


def test_only_the_first_word_counts(bench):
    begun = []
    bench.run(lambda: (bench.pool.wait_for(begun.append), bench.pool.wait_for(begun.append)))
    begun[0](None, 1)
    begun[0](None, 2)
    begun[0](KeyError())
    assert bench.ended == []
    begun[1](None, 3)
    assert bench.ended == [(1, 3)]


def test_waiting_outside_a_fiber_is_a_mistake(bench):
    with pytest.raises(RuntimeError):
        bench.pool.wait_for(lambda done: done())
    bench.pool.breathe()  # but this may be called by code that runs in both


def test_a_wait_may_have_an_end(bench):
    cancelled = []
    deferred = defer.Deferred(cancelled.append)

    def work():
        try:
            bench.pool.wait(deferred, timeout_s=5)
        except WaitTimeout:
            return "late"

    bench.run(work)
    bench.reactor.advance(4.9)
    assert bench.ended == []
    bench.reactor.advance(0.2)
    assert bench.ended == ["late"]
    assert cancelled == [deferred]


def test_a_wait_that_ends_in_time_leaves_no_timer(bench):
    begun = []
    bench.run(lambda: bench.pool.wait_for(begun.append, timeout_s=5))
    begun[0](None, 1)
    assert bench.ended == [1]
    assert bench.reactor.getDelayedCalls() == []


def test_long_runs_take_turns_one_slice_per_pass(bench):
    trace = []

    def work(name, slices):
        for number in range(slices):
            trace.append((name, number))
            bench.spin()
            bench.pool.breathe()
        return name

    bench.run(lambda: work("a", 3))
    bench.run(lambda: work("b", 2))
    assert trace == [("a", 0), ("b", 0)]
    assert bench.pool.waiting_for_a_turn == 2
    bench.pass_once()
    assert trace[2:] == [("a", 1)]
    bench.run(lambda: "point get")
    assert bench.ended == ["point get"]
    bench.pass_once()
    bench.pass_once()
    assert trace[3:] == [("b", 1), ("a", 2)]
    bench.pass_once()
    bench.pass_once()
    assert bench.ended == ["point get", "b", "a"]
    assert bench.reactor.calls == []


def test_a_short_run_breathes_without_giving_way(bench):
    def work():
        for _ in range(100):
            bench.spin(SLICE_S / 200)
            bench.pool.breathe()
        return "done"

    bench.run(work)
    assert bench.ended == ["done"]


def test_a_fiber_that_is_continued_from_inside_another_waits_for_the_next_pass(bench):
    deferred = defer.Deferred()
    order = []

    def waiter():
        bench.pool.wait(deferred)
        order.append("waiter")

    def firer():
        deferred.callback(None)
        bench.run(lambda: order.append("started inside"))
        order.append("firer")

    bench.run(waiter)
    bench.run(firer)
    assert order == ["firer"]
    bench.pass_once()
    assert order == ["firer", "waiter"]
    bench.pass_once()
    assert order == ["firer", "waiter", "started inside"]


def test_interrupting_what_waits(bench):
    deferred = defer.Deferred()
    cleaned = []

    def work():
        try:
            bench.pool.wait(deferred)
        finally:
            cleaned.append(bench.pool.wait(defer.succeed("waiting again is allowed")))

    item = bench.run(work)
    bench.pool.interrupt(item, "killed")
    (error,) = bench.ended
    assert isinstance(error, Interrupted)
    assert error.message == "killed"
    assert cleaned == ["waiting again is allowed"]
    assert deferred.called  # cancelled


def test_interrupting_what_works(bench):
    def work():
        while True:
            bench.spin()
            bench.pool.breathe()

    item = bench.run(work)
    bench.pool.interrupt(item, "killed")
    assert bench.ended == []
    bench.pass_once()
    assert [error.message for error in bench.ended] == ["killed"]


def test_interrupting_oneself_counts_from_the_next_wait_or_breath(bench):
    for pause in (bench.pool.breathe, lambda: bench.pool.wait_for(lambda done: None)):
        item = Item()

        def work(item=item, pause=pause):
            bench.pool.interrupt(item, "myself")
            pause()

        bench.run(work, item)
    assert [error.message for error in bench.ended] == ["myself", "myself"]


def test_an_interruption_that_nobody_noticed_does_not_hit_the_next_query(bench):
    item = Item()

    def work():
        bench.pool.interrupt(item, "too late")
        return "finished first"

    bench.run(work, item)
    bench.pool.interrupt(item, "much too late")
    bench.run(lambda: bench.pool.breathe() or "next")
    assert bench.ended == ["finished first", "next"]


def test_a_query_may_not_swallow_an_interruption_by_catching_exceptions(bench):
    def work():
        try:
            bench.pool.wait_for(lambda done: None)
        except Exception:
            return "swallowed"

    bench.pool.interrupt(bench.run(work), "killed")
    assert isinstance(bench.ended[0], Interrupted)


def test_deadlines(bench):
    bench.run(lambda: bench.pool.wait_for(lambda done: None), deadline_s=bench.now + 10)
    bench.run(lambda: "quick", deadline_s=bench.now + 10)
    bench.reactor.advance(9.9)
    assert bench.ended == ["quick"]
    bench.reactor.advance(0.2)
    assert isinstance(bench.ended[1], Interrupted)
    assert bench.reactor.getDelayedCalls() == []


@pytest.mark.parametrize(
    ("inner", "outer"),
    [
        (NotLeader("not here"), ReqlOpFailedError),
        (Overloaded("full", "Try later."), ReqlOpFailedError),
        (LeadershipLost("lost"), ReqlOpIndeterminateError),
        (SyncFailed("fsync"), ReqlOpIndeterminateError),
        (DiskFull("full"), ReqlOpIndeterminateError),
        (Corrupt("bad block"), ReqlOpIndeterminateError),
        (MemoryError(), ReqlResourceLimitError),
        (ReqlQueryLogicError("as it is"), ReqlQueryLogicError),
    ],
)
def test_inner_errors_become_what_a_driver_understands(bench, inner, outer):
    def work():
        raise inner

    bench.run(work)
    assert type(bench.ended[0]) is outer
    assert bench.ended[0].message.startswith(str(inner)) or isinstance(inner, MemoryError)


def test_a_bug_is_an_internal_error_with_its_traceback_in_the_log(bench, caplog):
    with caplog.at_level(logging.ERROR):
        bench.run(lambda: 1 / 0)
    assert type(bench.ended[0]) is ReqlInternalError
    assert bench.ended[0].message == "Unexpected exception: ZeroDivisionError: division by zero"
    assert "1 / 0" in caplog.text


def test_endless_recursion_is_a_limit(bench):
    def deeper():
        return deeper() + 1

    bench.run(deeper)
    assert type(bench.ended[0]) is ReqlResourceLimitError
    bench.run(lambda: "still there")
    assert bench.ended[1] == "still there"


def test_a_failing_end_is_logged_and_harms_nobody(bench, caplog):
    def done(item, result, error):
        raise RuntimeError("a bug in the shell")

    bench.pool.run(lambda item: 1, Item(), done)
    assert "a bug in the shell" in caplog.text
    bench.run(lambda: 2)
    assert bench.ended == [2]


def test_fibers_are_reused_and_forget_their_work(bench):
    used = set()
    for _ in range(5):
        bench.run(lambda: used.add(greenlet.getcurrent()))
    assert len(used) == 1
    (fiber,) = bench.pool._idle
    assert fiber.item is fiber.done is fiber.interruption is bench.pool._result is None
    assert fiber.args == ()


def test_idle_fibers_are_not_hoarded(bench):
    begun = []
    for _ in range(200):
        bench.run(lambda: bench.pool.wait_for(begun.append))
    for done in begun:
        done()
    assert len(bench.ended) == 200
    assert len(bench.pool._idle) == 64


def test_the_short_way(bench):
    pool = bench.pool
    assert pool.start(lambda item, context: (item, context), 1, 2) == (1, 2)
    assert isinstance(pool.start(lambda item, context: 1 / 0, 1, 2), Failed)
    assert len(pool._idle) == 1
    begun = []
    assert pool.start(lambda item, context: pool.wait_for(begun.append), b"body", None) is WAITING
    item = Item()
    pool.adopt(item, bench.done)
    assert pool.start(lambda item, context: "meanwhile", 1, 2) == "meanwhile"
    begun[0](None, "later")
    assert bench.ended == ["later"]
    assert item.fiber is None


def test_the_short_way_can_be_interrupted_from_inside_and_taken_over(bench):
    pool = bench.pool

    def kills_itself(item, context):
        pool.interrupt_current("myself")
        pool.breathe()

    failed = pool.start(kills_itself, 1, 2)
    assert failed.error.message == "myself"
    pool.start(lambda item, context: pool.interrupt_current("unnoticed"), 1, 2)
    assert pool.start(lambda item, context: pool.breathe(), 1, 2) is None
    assert pool.start(lambda item, context: pool.wait_for(lambda done: None), 1, 2) is WAITING
    item = Item()
    pool.adopt(item, bench.done)
    pool.interrupt(item, "killed")
    assert [error.message for error in bench.ended] == ["killed"]


def test_errands_of_the_server(bench):
    deferred = defer.Deferred()
    answer = bench.pool.errand(lambda: bench.pool.wait(deferred) * 2)
    seen = []
    answer.addBoth(seen.append)
    deferred.callback(4)
    failed = bench.pool.errand(lambda: {}["x"])
    failed.addErrback(lambda failure: seen.append(failure.type))
    assert seen == [8, KeyError]


def promise(bench):
    """What is asked of a pool once a query has promised something: (item, answer, the promise's `done`)."""
    begun = []
    item, answer = Item(), Promised(Answer("atom", [b"5"]), begun.append)
    bench.pool.promise(item, answer, bench.done)
    assert bench.ended == []
    return item, answer, begun[0]


def test_a_promise_is_told_when_it_is_kept(bench):
    item, answer, done = promise(bench)
    assert item.fiber is not None
    done(None)
    assert bench.ended == [answer.answer]
    assert item.fiber is None
    done(LeadershipLost("too late"))
    bench.pool.interrupt(item, "too late")
    assert bench.ended == [answer.answer]


def test_a_broken_promise_may_have_been_kept(bench):
    _, _, done = promise(bench)
    done(LeadershipLost("gone"))
    assert [type(error) for error in bench.ended] == [ReqlOpIndeterminateError]


def test_a_query_that_waits_for_a_promise_can_be_interrupted(bench):
    item, _, done = promise(bench)
    bench.pool.interrupt(item, "killed")
    assert [error.message for error in bench.ended] == ["killed"]
    done(None)
    assert len(bench.ended) == 1


def test_a_promise_kept_inside_a_fiber_is_told_outside(bench):
    _, answer, done = promise(bench)
    bench.run(lambda: done(None))
    assert bench.ended == [None]
    bench.pass_once()
    assert bench.ended == [None, answer.answer]


def test_a_promise_that_cannot_be_told_is_logged(bench, caplog):
    begun = []
    bench.pool.promise(Item(), Promised(Answer("atom", [b"5"]), begun.append), lambda *outcome: 1 / 0)
    begun[0](None)
    assert "the end of a query could not be told" in caplog.text
