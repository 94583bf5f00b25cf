"""A cluster of real servers for tests, whose links can be cut one by one, and clients that keep books.

Every server advertises the address of a `Wire` in front of its cluster port. A wire reads from the greeting who
calls, so each direction between two servers can be cut for itself: what is cut is held back, as by a network that
is gone for a while.
"""

import asyncio
import os
import random
import resource
import secrets
import signal
import socket
import threading
import time
from pathlib import Path

import msgspec
from rethinkdb import errors, r

from integration.small_disk import SmallDisk
from server.child import ServerProcess
from server.cluster.joining import SECRET_BYTES, Invitation, encode_token, key_of

DEADLINE_S = 60


def wait_until(condition, what, deadline_s=DEADLINE_S):
    """Looks again and again until `condition()` gives something true, and returns it."""
    until = time.monotonic() + deadline_s
    pause = threading.Event()
    last = None
    while time.monotonic() < until:
        try:
            last = condition()
        except (errors.ReqlError, OSError) as error:
            last = error
        else:
            if last:
                return last
        pause.wait(0.05)
    raise AssertionError(f"{what} did not happen within {deadline_s} s; last seen: {last!r}")


class Wires:
    """All wires of a cluster, on a thread of their own. `cut` holds (caller, called) pairs of member ids."""

    def __init__(self):
        self.cut = set()
        self._carried = {}  # (caller, called): the writers of both ends
        self._loop = asyncio.new_event_loop()
        self._servers = []
        self._thread = threading.Thread(target=self._loop.run_forever, name="wires", daemon=True)
        self._thread.start()

    def add(self, port):
        """A wire to a cluster port on loopback; the port of the wire."""

        async def begin():
            server = await asyncio.start_server(
                lambda reader, writer: self._carry(port, reader, writer), "127.0.0.1", 0
            )
            self._servers.append(server)
            return server.sockets[0].getsockname()[1]

        return asyncio.run_coroutine_threadsafe(begin(), self._loop).result(10)

    def snap(self, caller, called):
        """The connection that one member made to another one breaks, as by a router that forgot it."""

        def close():
            for writer in self._carried.pop((caller, called)):
                writer.transport.abort()

        self._loop.call_soon_threadsafe(close)

    def close(self):
        async def end():
            for server in self._servers:
                server.close()
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()

        asyncio.run_coroutine_threadsafe(end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    async def _carry(self, port, reader, writer):
        try:
            first = await reader.readexactly(4)
            pair = None
            if first != b"RDBJ" and first[0] != 0x16:  # neither a question to join nor TLS
                head = await reader.readexactly(17)
                payload = await reader.readexactly(int.from_bytes(first, "little"))
                hello = msgspec.msgpack.decode(payload)
                pair = (hello[5], hello[6])
                first += head + payload
            back, forth = await asyncio.open_connection("127.0.0.1", port)
            forth.write(first)
            self._carried[pair] = (writer, forth)
            await asyncio.gather(self._pump(reader, forth, pair), self._pump(back, writer, pair and pair[::-1]))
        except (OSError, asyncio.IncompleteReadError):
            return
        finally:
            writer.close()

    async def _pump(self, reader, writer, pair):
        """Carries bytes on; while the pair is cut they are held, as TCP does until a network comes back."""
        try:
            while data := await reader.read(1 << 16):
                while pair in self.cut:
                    await asyncio.sleep(0.02)
                writer.write(data)
                await writer.drain()
        except OSError:
            return
        finally:
            writer.close()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Member:
    """One server of a cluster, over all its lives, on a disk of its own if one is given (`SmallDisk`)."""

    def __init__(self, cluster, name, disk=None):
        self.cluster = cluster
        self.name = name
        self.disk = disk
        self.folder = cluster.folder / name if disk is None else disk.folder / "data"
        self.cluster_port = free_port()
        self.wire_port = cluster.wires.add(self.cluster_port) if cluster.is_wired else self.cluster_port
        self.id = 0
        self.process = None
        self.is_paused = False
        self.driver_port = 0

    def start(self, *flags, **options):
        port = ("--driver-port", str(self.driver_port)) if self.driver_port else ()
        if self.disk is not None:
            options["command"] = self.disk.server
        self.process = ServerProcess(
            self.folder,
            "--name",
            self.name,
            "--cluster-port",
            str(self.cluster_port),
            "--advertise",
            f"127.0.0.1:{self.wire_port}",
            "--no-http",
            *port,
            *self.cluster.flags,
            *flags,
            **options,
        )
        self.driver_port = self.process.port
        return self

    @property
    def is_up(self):
        return self.process is not None and self.process.is_running and not self.is_paused

    def connect(self, timeout_s=15):
        return r.connect(host="127.0.0.1", port=self.driver_port, timeout=timeout_s)

    def kill(self):
        self.resume()
        self.process.kill()

    def pause(self):
        self.is_paused = True
        os.kill(self.process.pid, signal.SIGSTOP)

    def resume(self):
        if self.is_paused:
            self.is_paused = False
            os.kill(self.process.pid, signal.SIGCONT)

    def fill_disk(self):
        """The member's disk takes no more; without one of its own, no file of its process takes a byte more."""
        if self.disk is not None:
            self.disk.fill()
        elif self.process.is_running:
            resource.prlimit(self.process.pid, resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))

    def free_disk(self):
        """The disk takes what it is given again."""
        if self.disk is not None:
            self.disk.free()
        elif self.process.is_running:
            resource.prlimit(self.process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)


class Cluster:
    """Servers that found each other by invitations. disk_megabytes: of the disk that each has for itself, if any.

    is_wired: links go over wires, which take this process's time.
    """

    def __init__(self, folder: Path, *flags, disk_megabytes=0, is_wired=True):
        self.folder = folder
        self.flags = flags
        self.disk_megabytes = disk_megabytes
        self.is_wired = is_wired
        self.wires = Wires()
        self.members = []

    def grow(self, count, *flags, **options):
        """Adds servers until there are that many, and waits until all vote."""
        while len(self.members) < count:
            self.add(*flags, **options)
        self.wait_for_voters(count)
        return self

    def add(self, *flags, name="", **options):
        name = name or f"s{len(self.members) + 1}"
        disk = SmallDisk(self.folder / f"disk of {name}", self.disk_megabytes) if self.disk_megabytes else None
        member = Member(self, name, disk)
        join = ("--join", self.invite()) if self.members else ()
        self.members.append(member)
        member.start(*join, *flags, **options)
        member.id = wait_until(lambda: self.row_of(member.name), "the new member's row")["id"]
        return member

    def invite(self, learner=False):
        """A token, as `rewinddb member invite` makes it."""
        secret, name = secrets.token_bytes(SECRET_BYTES), secrets.token_hex(8)
        with self.any().connect() as conn:
            rows = wait_until(lambda: self.rows(conn), "a member's address")
            row = {"id": name, "key": key_of(secret).hex(), "learner": learner}
            answer = r.db("rethinkdb").table("invitations").insert(row).run(conn)
            assert answer["inserted"] == 1, answer
        addresses = tuple(row["address"] for row in rows)
        return encode_token(Invitation(addresses, rows[0]["cluster_id"], name, secret))

    def any(self):
        return next(member for member in self.members if member.is_up)

    def rows(self, conn=None, read_mode="single"):
        """The table `members` as a server sees it."""
        query = r.db("rethinkdb").table("members", read_mode=read_mode).order_by("id")
        if conn is not None:
            return list(query.run(conn))
        with self.any().connect() as own:
            return list(query.run(own))

    def row_of(self, name):
        return next((row for row in self.rows() if row["name"] == name), None)

    def wait_for_voters(self, count):
        wait_until(
            lambda: sum(row["role"] == "voter" and row["health"] == "ok" for row in self.rows()) == count,
            f"{count} voters",
        )

    def leader(self, deadline_s=DEADLINE_S):
        """The member that leads, as a majority's member knows."""

        def look():
            for member in self.members:
                if member.is_up:
                    with member.connect() as conn:
                        leading = [row["id"] for row in self.rows(conn) if row["is_leader"]]
                    return next((one for one in self.members if one.id in leading and one.is_up), None)
            return None

        return wait_until(look, "somebody leads", deadline_s)

    def followers(self):
        leader = self.leader()
        return [member for member in self.members if member is not leader and member.is_up]

    def isolate(self, member):
        """Nothing comes to or from a member any more."""
        others = [other.id for other in self.members if other is not member]
        self.wires.cut |= {(member.id, other) for other in others} | {(other, member.id) for other in others}

    def heal(self):
        self.wires.cut = set()

    def close(self):
        for member in self.members:
            if member.process is not None:
                member.kill()
            if member.disk is not None and self.disk_megabytes:
                member.disk.close()
        self.wires.close()

    def output(self):
        """What all servers printed, for a failed test."""
        return "\n".join(f"== {m.name}\n{m.process.output}" for m in self.members if m.process is not None)


class Faults:
    """Does things to a cluster of which a majority stays: kills, pauses, cuts, fills disks, moves the lead."""

    def __init__(self, cluster, dice: random.Random):
        self.cluster = cluster
        self.dice = dice
        self.done = []
        self.ended_by_full_disks = 0

    def __str__(self):
        counts = ", ".join(f"{self.done.count(name)} {name}" for name in sorted(set(self.done)))
        return f"{len(self.done)} faults: {counts}; {self.ended_by_full_disks} servers ended by full disks"

    def one(self):
        """One fault, begun and ended again."""
        kinds = (self.kill, self.pause, self.isolate, self.cut_one_way, self.transfer, self.stop, self.fill_disk)
        kind = self.dice.choice(kinds)
        self.done.append(kind.__name__)
        kind()

    def _victim(self):
        up = [member for member in self.cluster.members if member.is_up]
        if self.dice.random() < 0.6:
            return self.cluster.leader()
        return self.dice.choice(up)

    def _rest(self, low, high):
        threading.Event().wait(self.dice.uniform(low, high))

    def kill(self):
        member = self._victim()
        member.kill()
        self._rest(0.2, 2.0)
        member.start()

    def stop(self):
        member = self._victim()
        assert member.process.stop() == 0, member.process.output
        self._rest(0.0, 1.0)
        member.start()

    def pause(self):
        member = self._victim()
        member.pause()
        self._rest(0.2, 3.0)
        member.resume()

    def isolate(self):
        self.cluster.isolate(self._victim())
        self._rest(0.5, 3.0)
        self.cluster.heal()

    def cut_one_way(self):
        member = self._victim()
        other = self.dice.choice([one for one in self.cluster.members if one is not member])
        self.cluster.wires.cut = {(member.id, other.id)}
        self._rest(0.5, 2.5)
        self.cluster.heal()

    def fill_disk(self):
        """A server's disk is full for a while, which ends the server once it has to write more than it has."""
        member = self._victim()
        member.fill_disk()
        self._rest(0.5, 4.0)
        member.free_disk()
        applied = self._applied(member)
        wait_until(lambda: not member.process.is_running or self._applied(member) > applied, "an end or going on")
        if not member.process.is_running:
            assert member.process.wait() == 1, member.process.output
            assert "space" in member.process.output or "File too large" in member.process.output
            self.ended_by_full_disks += 1
            member.start()

    def _applied(self, member):
        """How far a server is, by its own word; what is applied is on its disk. -1 if it is not there."""
        try:
            with member.connect() as conn:
                row = r.db("rethinkdb").table("members", read_mode="outdated").get(member.id)
                return row["log"]["applied"].run(conn)
        except (errors.ReqlError, errors.ReqlDriverError, OSError):
            return -1

    def transfer(self):
        heir = self.dice.choice(self.cluster.followers())
        with heir.connect() as conn:
            r.db("rethinkdb").table("members").get(heir.id).update({"is_leader": True}).run(conn)
