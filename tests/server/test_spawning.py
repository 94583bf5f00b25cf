"""A program is started without copying the server's memory, which would stop the reactor for a tenth of a second."""

import asyncio
import mmap
import os
import resource
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest_twisted
import uvloop
from twisted.internet.defer import Deferred

from server.spawning import spawn

PAGES = 8192
PROGRAMS = 300
THREADS = 4


class Listener(asyncio.SubprocessProtocol):
    def __init__(self, loop):
        self.heard = {1: b"", 2: b""}
        self.ended = loop.create_future()

    def pipe_data_received(self, fd, data):
        self.heard[fd] += data

    def connection_lost(self, exc):
        self.ended.set_result(None)


def pages_copied(memory):
    """How many page faults it costs to write to every page."""
    before = resource.getrusage(resource.RUSAGE_THREAD).ru_minflt
    for page in range(PAGES):
        memory[page * mmap.PAGESIZE] = 1
    return resource.getrusage(resource.RUSAGE_THREAD).ru_minflt - before


async def run(code):
    loop = asyncio.get_event_loop()
    listener = Listener(loop)
    program = await spawn(loop, listener, (sys.executable, "-c", code), os.environ)
    return program, listener


@pytest_twisted.ensureDeferred
async def test_what_a_program_says_and_how_it_ends_is_told():
    code = "import sys; print(input()); print('oh', file=sys.stderr); sys.exit(3)"
    program, listener = await Deferred.fromFuture(asyncio.ensure_future(run(code)))
    program.get_pipe_transport(0).write(b"hello\n")
    await Deferred.fromFuture(listener.ended)
    assert (program.get_returncode(), listener.heard) == (3, {1: b"hello\n", 2: b"oh\n"})


@pytest_twisted.ensureDeferred
async def test_the_memory_is_not_copied():
    with mmap.mmap(-1, PAGES * mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        memory.madvise(mmap.MADV_NOHUGEPAGE)
        assert pages_copied(memory) >= PAGES
        program, listener = await Deferred.fromFuture(asyncio.ensure_future(run("input()")))
        assert pages_copied(memory) < PAGES / 4
        program.kill()
        await Deferred.fromFuture(listener.ended)


def test_the_end_of_a_program_closes_no_file_of_another_thread():
    """A number closed twice is another file's by then: one that is gone, for who opened it, once in 20 programs."""
    lost, is_over = [], threading.Event()

    def open_and_close():
        while not is_over.is_set():
            handle = os.open(os.devnull, os.O_RDONLY)
            try:
                os.fstat(handle)
                os.close(handle)
            except OSError as error:
                lost.append(error)

    async def run_programs():
        loop = asyncio.get_running_loop()
        for _ in range(PROGRAMS):
            listener = Listener(loop)
            await spawn(loop, listener, ("/bin/sh", "-c", ":"), os.environ)
            await listener.ended

    loop = uvloop.new_event_loop()
    threads = [threading.Thread(target=open_and_close) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    try:  # on a thread of its own: this one may run a loop already
        with ThreadPoolExecutor(1) as executor:
            executor.submit(loop.run_until_complete, run_programs()).result()
    finally:
        is_over.set()
        for thread in threads:
            thread.join()
        loop.close()
    assert lost == []
