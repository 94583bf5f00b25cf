"""Processes that run scripts: used again, killed when a script hangs, replaced when they die."""

from __future__ import annotations

from threading import Event

import pytest
from twisted.internet import reactor
from twisted.internet.defer import CancelledError
from twisted.internet.threads import deferToThread

from server import javascript
from server.javascript import CRASHED, JavascriptEngines


@pytest.fixture
def engines():
    engines = JavascriptEngines(reactor.callFromThread)
    yield engines
    engines.close()


def ask(engines, source, calls=None, limit_ms=5000, session=1):
    request = [session, source, calls, limit_ms, 100]
    return engines.submit(
        lambda worker: worker.ask(request, 1 if calls is None else len(calls), limit_ms / 1000), session
    )


async def test_one_process_serves_one_query_after_the_other(engines):
    assert await ask(engines, "x = 1") == [["value", "1"]]
    assert await ask(engines, "x + 1") == [["value", "2"]]
    assert await ask(engines, "typeof x", session=2) == [["value", '"undefined"']]
    assert len(engines._idle) == 1


async def test_calls_are_answered_up_to_the_first_that_fails(engines):
    source = "(function (a) { if (a > 1) throw 'too much'; return a; })"
    assert await ask(engines, source, [[0], [1], [2], [3]]) == [
        ["value", "0"],
        ["value", "1"],
        ["error", "too much"],
    ]


async def test_a_script_that_hangs_is_stopped_and_the_process_lives_on(engines):
    assert await ask(engines, "while (true) {}", limit_ms=30) == [["timeout"]]
    assert await ask(engines, "1") == [["value", "1"]]
    assert len(engines._idle) == 1


async def test_a_process_that_ends_is_replaced(engines):
    assert await ask(engines, "1") == [["value", "1"]]
    engines._idle[0].kill()
    assert await ask(engines, "2") == [["value", "2"]]

    def die(worker):
        worker._process.kill()
        return worker.ask([1, "1", None, 1000, 100], 1, 1.0)

    assert await engines.submit(die, 1) == [CRASHED]
    assert await ask(engines, "3") == [["value", "3"]]


async def test_a_query_that_is_gone_kills_its_script(engines):
    running = ask(engines, "while (true) {}", limit_ms=3_600_000)
    assert await ask(engines, "1", session=2) == [["value", "1"]]  # the other one is at it by now
    running.cancel()
    with pytest.raises(CancelledError):
        await running
    assert await ask(engines, "2") == [["value", "2"]]


async def test_a_query_that_is_gone_while_its_worker_starts_leaves_no_script(engines, monkeypatch):
    starting, go = Event(), Event()

    class SlowWorker(javascript.Worker):
        def __init__(self):
            super().__init__()
            starting.set()
            go.wait()

    monkeypatch.setattr(javascript, "Worker", SlowWorker)
    running = ask(engines, "while (true) {}", limit_ms=3_600_000)
    starting.wait()
    running.cancel()
    with pytest.raises(CancelledError):
        await running
    go.set()
    await deferToThread(engines._threads.shutdown, wait=True)  # returns once the worker has


async def test_scripts_reach_nothing_but_the_language(engines):
    for name in ("std", "os", "require", "process", "fetch", "setTimeout", "WebAssembly"):
        assert await ask(engines, f"typeof {name}") == [["value", '"undefined"']]
    answer = await ask(engines, "import('os').then((it) => { leak = it; }); 1")
    assert answer[0][0] in ("value", "error")
    assert await ask(engines, "typeof leak") == [["value", '"undefined"']]
