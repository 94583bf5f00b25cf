"""Calls come in their order, once, and not if they were taken back."""

import asyncio

import pytest

from server.loop_timers import LoopTimers


class Loop:
    """What is used of an event loop, with handles of the real kind."""

    def __init__(self):
        self.coming = []

    def call_soon(self, call):
        return self.call_later(0, call)

    def call_later(self, delay, call):
        handle = asyncio.Handle(call, (), self)
        self.coming.append((delay, len(self.coming), handle))
        return handle

    def get_debug(self):
        return False

    def call_exception_handler(self, context):
        raise context["exception"]

    def run(self):
        while self.coming:
            self.coming.sort(key=lambda entry: entry[:2])
            handle = self.coming.pop(0)[2]
            if not handle.cancelled():
                handle._run()


@pytest.fixture
def loop():
    return Loop()


def test_calls_come_in_the_order_of_their_times(loop):
    timers, came = LoopTimers(loop), []
    later = timers.callLater(0.5, came.append, "later")
    soon = timers.callLater(0, lambda *words: came.extend(words), "soon", "er")
    assert soon.active() and later.active()
    loop.run()
    assert came == ["soon", "er", "later"]
    assert not soon.active() and not later.active()
    soon.cancel()


def test_what_is_taken_back_does_not_come(loop):
    timers, came = LoopTimers(loop), []
    for delay in (0, 0.5):
        call = timers.callLater(delay, came.append, delay)
        call.cancel()
        assert not call.active()
        call.cancel()
    loop.run()
    assert came == []


def test_a_call_is_not_to_come_any_more_when_it_comes(loop):
    timers, was_active = LoopTimers(loop), []
    calls = []
    calls.append(timers.callLater(0, lambda: was_active.append(calls[0].active())))
    loop.run()
    assert was_active == [False]
