"""Children and the server: jobs in, events out, an end that is always known; none is left behind."""

import asyncio
import json
import subprocess
import sys
import time

import pytest_twisted

from backup.child import ABANDONED
from server.backups.children import COMMAND, ROOT, ChildFailed, Children

ECHO = "import sys,json; job=json.loads(sys.stdin.readline()); print(json.dumps({'event':'progress','job':job})); "


def children_of(script):
    return Children(asyncio.get_event_loop(), time.monotonic, (sys.executable, "-c", script))


async def outcome(child):
    try:
        return await child.done
    except ChildFailed as error:
        return error


@pytest_twisted.ensureDeferred
async def test_a_job_goes_in_and_its_result_comes_out():
    heard = []
    done = 'print(json.dumps({"event": "done", "result": {"rows": 3}}))'
    child = children_of(ECHO + "print('no event'); " + done).start({"job": "x", "secret": "s"}, heard.append)
    assert await child.done == {"rows": 3}
    assert heard == [{"event": "progress", "job": {"job": "x", "secret": "s"}}]


@pytest_twisted.ensureDeferred
async def test_every_other_end_is_a_failure():
    failed = 'print(json.dumps({"event": "failed", "kind": "K", "message": "m", "hint": "h"})); sys.exit(1)'
    error = await outcome(children_of(ECHO + failed).start({}, lambda event: None))
    assert (error.kind, str(error)) == ("K", "m h")
    assert "exit code 5" in str(await outcome(children_of(ECHO + "sys.exit(5)").start({}, lambda event: None)))
    assert "exit code 0" in str(await outcome(children_of(ECHO).start({}, lambda event: None)))
    half = 'print(json.dumps({"event": "done", "result": {}})); sys.stdout.flush(); import os; os.abort()'
    assert "signal 6" in str(await outcome(children_of(ECHO + half).start({}, lambda event: None)))
    nothing = Children(asyncio.get_event_loop(), time.monotonic, ("/nothing/there",))
    assert "could not be started" in str(await outcome(nothing.start({}, lambda event: None)))


@pytest_twisted.ensureDeferred
async def test_a_child_can_be_killed_and_a_stop_kills_all():
    children = children_of(ECHO + "sys.stdin.readline()")
    first = children.start({}, lambda event: first.kill("enough"))
    assert str(await outcome(first)) == "enough"
    second = children.start({}, lambda event: children.stop())
    assert "stopped" in str(await outcome(second))
    assert "stopped" in str(await outcome(children.start({}, lambda event: None)))


@pytest_twisted.ensureDeferred
async def test_orders_reach_a_child_that_runs():
    script = (
        ECHO + "sys.stdout.flush(); print(json.dumps({'event': 'done', 'result': json.loads(sys.stdin.readline())}))"
    )
    child = children_of(script).start({}, lambda event: child.send({"n": 1}))
    assert await child.done == {"n": 1}
    child.send({"n": 2})


def run_child(text, **options):
    return subprocess.run(COMMAND, input=text, capture_output=True, text=True, cwd=ROOT, timeout=60, **options)


def test_the_real_child_ends_with_its_input():
    """A shipping child whose server is gone has no reason to live."""
    job = {"job": "ship", "vault": {"name": "v", "url": "memory://x"}, "log": "/nowhere", "cluster_id": "c"}
    assert run_child(json.dumps({**job, "start_after": 0}) + "\n").returncode == ABANDONED


def test_the_real_child_says_why_it_cannot():
    with subprocess.Popen(COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write('{"job": "dance"}\n')
        process.stdin.flush()
        said = json.loads(process.stdout.readline())
        assert (said["event"], process.wait(30)) == ("failed", 1)
        assert "dance" in said["message"]
