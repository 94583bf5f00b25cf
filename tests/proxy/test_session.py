"""Sessions: RethinkDB's rules for tokens, cursors, noreply and stopping; any cutting of the bytes is the same."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.errors import ReqlUserError
from proxy.answers import Answer, Interrupted, QueryContext
from proxy.session import KILLED, Close, Disconnect, Interrupt, Query, Session

ATOM = Answer("atom", [b"1"])
END = {"t": 2, "r": [], "n": []}
INFO = b'{"id":"an id","name":"a name","proxy":false}'


class Cursor:
    def close(self):
        pass


def stream(*items, notes=()):
    return Answer("partial", list(items), list(notes), cursor=Cursor())


class Driver:
    """Performs a session's actions on paper: what was sent, run, interrupted, closed."""

    def __init__(self, frame, responses, **options):
        self.session = Session(QueryContext("admin", ("h", 1), 1, None), INFO, **options)
        self.frame = frame
        self.responses = responses
        self.sent = b""
        self.runs = []
        self.interrupts = []
        self.closed = []
        self.disconnects = []

    def say(self, token, query):
        self.feed(self.frame(token, query))

    def feed(self, data):
        start = self.session.receive_start(data)
        self.perform([self.session.adopt(*start)] if start is not None else self.session.receive(data))
        self.go_on()

    def go_on(self):
        while (actions := self.session.proceed()) is not None:
            self.perform(actions)

    def perform(self, actions):
        for action in actions or ():
            if isinstance(action, bytes):
                self.sent += action
            elif isinstance(action, Query):
                self.runs.append(action)
            elif isinstance(action, Interrupt):
                self.interrupts.append(action)
            elif isinstance(action, Close):
                self.closed.append(action.cursor)
            else:
                assert isinstance(action, Disconnect)
                self.disconnects.append(action)

    def finish(self, query, answer=ATOM):
        self.perform(self.session.finished(query, answer))
        self.go_on()

    def fail(self, query, error):
        self.perform(self.session.failed(query, error))
        self.go_on()

    def heard(self):
        data, self.sent = self.sent, b""
        return self.responses(data)


@pytest.fixture
def driver(frame, responses):
    return lambda **options: Driver(frame, responses, **options)


def test_a_query_and_its_answer(driver):
    d = driver()
    d.say(7, [1, 5])
    assert [query.body for query in d.runs] == [b"[1, 5]"]
    d.say(8, b"[1,6]")
    assert d.runs[1].body == b"[1,6]"
    d.finish(d.runs[1], Answer("atom", [b"6"]))
    d.finish(d.runs[0], Answer("atom", [b"5"]))
    assert d.heard() == [(8, {"t": 1, "r": [6]}), (7, {"t": 1, "r": [5]})]
    assert d.session.queries == {}


def test_server_info(driver):
    d = driver()
    d.say(1, [5])
    assert d.heard() == [(1, {"t": 5, "r": [{"id": "an id", "name": "a name", "proxy": False}]})]


def test_what_is_no_query_is_answered_and_the_connection_goes_on(driver):
    d = driver()
    d.say(1, b"nonsense")
    d.say(2, [9])
    d.say(3, b"[5]")
    first, second, third = d.heard()
    assert first == (1, {"t": 16, "r": ["Client is buggy (failed to deserialize query)."], "b": []})
    assert second == (2, {"t": 16, "r": ["Server could not parse query: Unrecognized QueryType: 9."], "b": []})
    assert third[1]["t"] == 5


def test_a_stream_is_continued_to_its_end(driver):
    d = driver()
    d.say(5, [1, "rows"])
    (query,) = d.runs
    d.finish(query, stream(b"1", b"2"))
    d.say(5, [2])
    assert d.runs == [query, query]
    d.finish(query, Answer("sequence", [b"3"]))
    assert d.heard() == [(5, {"t": 3, "r": [1, 2], "n": []}), (5, {"t": 2, "r": [3], "n": []})]
    d.say(5, [2])
    assert d.heard() == [(5, {"t": 16, "r": ["Token 5 not in stream cache."], "b": []})]
    assert d.closed  # nobody will ask it again
    assert d.session.queries == {}


def test_stopping_a_stream_between_batches(driver):
    d = driver()
    d.say(5, [1, "rows"])
    answer = stream(b"1")
    d.finish(d.runs[0], answer)
    d.heard()
    d.say(5, [3])
    assert d.heard() == [(5, END)]
    assert d.closed == [answer.cursor]
    d.say(5, [3])
    assert d.heard() == [(5, {"t": 16, "r": ["Token 5 not in stream cache."], "b": []})]


def test_stopping_a_feed_that_waits_answers_the_continue_and_the_stop(driver):
    d = driver()
    d.say(5, [1, "feed"])
    answer = stream(notes=[1])
    d.finish(d.runs[0], answer)
    d.say(5, [2])
    assert d.heard() == [(5, {"t": 3, "r": [], "n": [1]})]
    d.say(5, [3])
    assert [(action.query, action.message) for action in d.interrupts] == [(d.runs[0], "")]
    assert d.heard() == []
    d.fail(d.runs[0], Interrupted(""))
    assert d.heard() == [(5, END), (5, END)]
    assert d.closed == [answer.cursor]


def test_a_stop_that_comes_too_late_for_the_batch(driver):
    d = driver()
    d.say(5, [1, "rows"])
    d.say(5, [3])
    answer = stream(b"1")
    d.finish(d.runs[0], answer)
    assert d.heard() == [(5, {"t": 3, "r": [1], "n": []}), (5, END)]
    assert d.closed == [answer.cursor]
    assert d.session.queries == {}


def test_stopping_what_is_no_stream(driver):
    d = driver()
    d.say(5, [1, "long"])
    d.say(5, [3])
    d.fail(d.runs[0], Interrupted(""))
    assert d.heard() == [(5, END), (5, END)]


def test_a_continue_that_comes_early_waits_for_its_turn(driver):
    d = driver()
    d.say(5, [1, "rows"])
    d.say(5, [2])
    d.finish(d.runs[0], stream(b"1"))
    assert len(d.runs) == 2
    d.finish(d.runs[1], Answer("sequence", [b"2"]))
    assert d.heard() == [(5, {"t": 3, "r": [1], "n": []}), (5, {"t": 2, "r": [2], "n": []})]


def test_a_continue_behind_the_end(driver):
    d = driver()
    d.say(5, [1, "rows"])
    d.say(5, [2])
    d.finish(d.runs[0])
    assert d.heard() == [(5, {"t": 1, "r": [1]}), (5, {"t": 16, "r": ["ERROR: duplicate token 5"], "b": []})]


@pytest.mark.parametrize("query", [[1, 6], [4], b"[1,6]"])
def test_a_token_is_used_once(driver, query):
    d = driver()
    d.say(-5, [1, 5])
    d.say(-5, query)
    assert d.heard() == [(-5, {"t": 16, "r": ["ERROR: duplicate token -5"], "b": []})]
    d.finish(d.runs[0])
    assert d.heard() == [(-5, {"t": 1, "r": [1]})]
    d.say(-5, [1, 6])
    assert len(d.runs) == 2


def test_errors_end_a_query(driver):
    d = driver()
    d.say(5, [1, "rows"])
    answer = stream(b"1")
    d.finish(d.runs[0], answer)
    d.say(5, [2])
    d.fail(d.runs[0], ReqlUserError("x", (1,)))
    assert d.heard()[1] == (5, {"t": 18, "e": 5000000, "r": ["x"], "b": [1]})
    assert d.closed == [answer.cursor]
    d.say(5, [2])
    assert d.heard() == [(5, {"t": 16, "r": ["Token 5 not in stream cache."], "b": []})]


def test_noreply_queries_answer_nothing_and_are_waited_for(driver):
    d = driver()
    d.say(1, [1, "a", {"noreply": True}])
    d.say(2, [1, "b"])
    d.say(3, [1, "c", {"noreply": True}])
    d.say(4, [4])
    d.say(5, [1, "d", {"noreply": True}])
    d.say(6, [4])
    a, b, c, e = d.runs
    d.finish(c)
    assert d.heard() == []
    d.fail(a, ReqlUserError("x"))
    assert d.heard() == [(4, {"t": 4, "r": []})]
    d.finish(e)
    assert d.heard() == [(6, {"t": 4, "r": []})]
    d.finish(b)
    assert d.heard() == [(2, {"t": 1, "r": [1]})]
    d.say(7, [4])
    assert d.heard() == [(7, {"t": 4, "r": []})]


def test_a_noreply_stream_is_dropped_after_its_first_batch(driver):
    d = driver()
    d.say(1, [1, "rows", {"noreply": True}])
    answer = stream(b"1")
    d.finish(d.runs[0], answer)
    assert d.heard() == []
    assert d.closed == [answer.cursor]
    assert d.session.queries == {}


def test_noreply_in_an_argument_is_no_option(driver):
    d = driver()
    d.say(1, b'[1,{"noreply":true}]')
    d.finish(d.runs[0])
    assert d.heard() == [(1, {"t": 1, "r": [1]})]


def test_only_so_many_run_at_once_and_feeds_do_not_count(driver):
    d = driver(max_running=2)
    d.say(1, [1, "feed"])
    d.finish(d.runs[0], stream(notes=[1]))
    d.say(1, [2])  # waits for ever
    for token in (2, 3, 4, 5):
        d.say(token, [1, token])
    assert [query.token for query in d.runs] == [1, 1, 2, 3]
    assert len(d.session.held) == 2
    d.finish(d.runs[3])
    assert [query.token for query in d.runs] == [1, 1, 2, 3, 4]
    d.finish(d.runs[2])
    d.finish(d.runs[4])
    d.finish(d.runs[5])
    assert [token for token, _ in d.heard()] == [1, 3, 2, 4, 5]
    assert d.session._running == 0


def test_one_at_a_time_for_old_drivers(driver):
    d = driver(max_running=1)
    d.feed(d.frame(1, [1, "a"]) + d.frame(2, [5]) + d.frame(3, [1, "c"]))
    assert [query.token for query in d.runs] == [1]
    d.finish(d.runs[0])
    assert [token for token, _ in d.heard()] == [1, 2]
    assert [query.token for query in d.runs] == [1, 3]


def test_nothing_new_is_run_while_the_peer_does_not_read(driver):
    d = driver()
    d.session.set_blocked(True)
    d.say(1, [1, "a"])
    d.say(2, [5])
    assert d.runs == []
    d.session.set_blocked(False)
    d.go_on()
    assert [query.token for query in d.runs] == [1]
    assert [token for token, _ in d.heard()] == [2]


def test_a_query_that_is_too_large(driver):
    d = driver(max_query_bytes=100)
    d.say(1, [5])
    d.say(2, b"x" * 100)
    d.say(3, [5])
    assert d.heard()[1:] == [(2, {"t": 16, "r": ["Query size (100) greater than maximum (99)."], "b": []})]
    assert len(d.disconnects) == 1
    assert d.runs == []


def test_killing_a_running_query(driver):
    d = driver()
    d.say(5, [1, "long"])
    d.perform(d.session.kill(d.runs[0]))
    assert d.interrupts[0].message == KILLED
    d.fail(d.runs[0], Interrupted(KILLED))
    assert d.heard() == [(5, {"t": 18, "e": 4200000, "r": [KILLED], "b": []})]


def test_killing_an_open_stream_is_told_when_more_is_asked_for(driver):
    d = driver()
    d.say(5, [1, "rows"])
    d.finish(d.runs[0], stream(b"1"))
    d.heard()
    d.perform(d.session.kill(d.runs[0]))
    assert len(d.closed) == 1
    d.say(5, [2])
    assert d.heard() == [(5, {"t": 18, "e": 4200000, "r": [KILLED], "b": []})]
    d.say(5, [2])
    assert d.heard()[0][1]["t"] == 16


def test_killing_a_stream_while_it_makes_a_batch(driver):
    d = driver()
    d.say(5, [1, "rows"])
    d.perform(d.session.kill(d.runs[0]))
    d.finish(d.runs[0], stream(b"1"))
    assert len(d.closed) == 1
    assert d.session.queries == {}


def test_when_the_connection_is_gone_everything_ends(driver):
    d = driver()
    d.say(1, [1, "long"])
    d.say(2, [1, "rows"])
    d.say(3, [1, "quiet", {"noreply": True}])
    d.finish(d.runs[1], stream(b"1"))
    d.heard()
    d.perform(d.session.closed())
    assert [action.query.token for action in d.interrupts] == [1, 3]
    assert len(d.closed) == 1
    d.fail(d.runs[0], Interrupted("gone"))
    d.finish(d.runs[2], stream(b"1"))
    assert d.heard() == []
    assert len(d.closed) == 2
    assert d.session.queries == {}
    d.say(4, [5])
    assert d.heard() == []


def test_ending_the_intake_still_answers_what_runs(driver):
    d = driver()
    d.say(1, [1, "a"])
    d.session.take_no_more()
    d.say(2, [1, "b"])
    d.finish(d.runs[0])
    assert d.heard() == [(1, {"t": 1, "r": [1]})]
    assert len(d.runs) == 1


QUERIES = st.sampled_from(
    [[1, 5], [1, "stream"], [1, "feed"], [2], [3], [4], [5], [1, 6, {"noreply": True}], b"junk", [9], [1]]
)


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(1, 4), QUERIES), max_size=14), st.lists(st.integers(0, 400), max_size=10))
def test_any_cutting_of_the_bytes_is_the_same(frame, responses, queries, cuts):
    """As long as outcomes come at the same points of the byte stream: here, at its end."""
    data = b"".join(frame(token, query) for token, query in queries)
    whole = Driver(frame, responses, max_running=3)
    whole.feed(data)
    cut = Driver(frame, responses, max_running=3)
    for low, high in pairwise([0, *sorted(at % (len(data) + 1) for at in cuts), len(data)]):
        cut.feed(data[low:high])
    for driver in (whole, cut):
        while driver.runs:
            query = driver.runs.pop(0)
            if query.cursor is None and b"stream" in query.body:
                driver.finish(query, stream(b"1"))
            elif query.cursor is None and b"feed" in query.body:
                driver.finish(query, stream(notes=[1]))
            else:
                driver.finish(query)
    assert cut.heard() == whole.heard()
    assert len(cut.interrupts) == len(whole.interrupts)
    assert cut.session._running == whole.session._running == 0


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(1, 3), QUERIES), max_size=20), st.randoms(use_true_random=False))
def test_slots_and_tokens_are_given_back_whatever_happens(frame, responses, queries, dice):
    d = Driver(frame, responses, max_running=2)
    for token, query in queries:
        d.say(token, query)
        while d.runs and dice.random() < 0.5:
            end(d, d.runs.pop(dice.randrange(len(d.runs))), dice)
    while d.runs:
        end(d, d.runs.pop(), dice)
    assert d.session._running == 0
    assert not d.session.held
    assert not d.session._noreply
    assert not d.session._waits
    assert all(query.cursor is not None for query in d.session.queries.values())
    d.heard()


def end(d, query, dice):
    outcome = dice.choice(["atom", "stream", "feed", "error", "interrupted"])
    if outcome == "error":
        d.fail(query, ReqlUserError("x"))
    elif outcome == "interrupted":
        d.fail(query, Interrupted("x"))
    else:
        d.finish(query, {"atom": ATOM, "stream": stream(b"1"), "feed": stream(notes=[1])}[outcome])
