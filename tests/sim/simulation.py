"""One history from its seed: servers, clients and faults in one world, watched by the checkers."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from consensus.messages import ConfState, Kind, Message
from model.effect import encode
from tests.sim.checkers import Checkers
from tests.sim.clients import SET_UP, Client
from tests.sim.faults import Faults
from tests.sim.linearizability import Act, Operation, Value, check
from tests.sim.network import Network, Weather
from tests.sim.plan import Plan, plan_of
from tests.sim.server import SimServer
from tests.sim.world import Violation, World

SETTLE_S = 90.0
LEAVE_AFTER_S = 0.5  # how long an operator looks at a joint configuration before it is ended


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a history."""

    seed: int
    violation: str
    lines: list[str]
    digest: str
    events: int
    operations: int
    elections: int
    committed: int
    states_compared: int
    faults: dict[str, int]

    @property
    def command(self) -> str:
        """What replays this history."""
        return f"python -m tests.sim --seed {self.seed}"


class Simulation:
    """The world of one seed."""

    def __init__(self, seed: int, plan: Plan | None = None) -> None:
        self.plan = plan or plan_of(seed)
        self.world = World(seed)
        self.network = Network(self.world)
        self.network.deliver = self._deliver
        self.network.was_lost = self._was_lost
        self.servers: dict[int, SimServer] = {}
        self.checkers = Checkers(self.world, self.servers)
        self.faults = Faults(self)
        self.is_busy = True
        self.has_lost_disk = False
        self._is_leaving = False
        self._initial = ConfState(tuple(range(1, self.plan.servers + 1)))
        self._histories: dict[int, list[Operation]] = {key: [] for key in range(self.plan.keys)}
        self._recent: dict[int, list[Value]] = {key: [None] for key in range(self.plan.keys)}
        self._values = 0
        for _ in range(self.plan.servers):
            self.add_server()

    # -- servers

    def add_server(self) -> SimServer:
        """A new server with an empty disk; it belongs to no group until it is added to one."""
        server = SimServer(self.world, self.plan, len(self.servers) + 1, self._initial)
        server.send = lambda messages: self._send(server, messages)
        server.on_stopped = self._revive_later
        server.on_membership = self.checkers.membership_changes
        self.servers[server.id] = server
        server.start()
        return server

    def running(self) -> list[SimServer]:
        """The servers that run."""
        return [server for server in self.servers.values() if server.is_running]

    def alive(self) -> list[SimServer]:
        """The servers that run or can run again."""
        return [server for server in self.servers.values() if not server.is_broken and not server.is_retired]

    def any_server(self) -> SimServer:
        """Some server."""
        return self.world.dice.choice(list(self.servers.values()))

    def leader(self) -> SimServer | None:
        """The leader of the newest term, if one runs."""
        leaders = [server for server in self.running() if server.node.is_leader]
        return max(leaders, key=lambda server: int(server.node.core.raft_term), default=None)

    def _revive_later(self, server: SimServer) -> None:
        self.world.after(self.world.dice.uniform(0.05, 4.0), self.revive, server)

    def revive(self, server: SimServer) -> None:
        """Start a server that is down, unless its disk is lost."""
        if not server.is_running and not server.is_broken and not server.is_retired:
            server.start()

    # -- messages

    def _send(self, server: SimServer, messages: Sequence[Message]) -> None:
        for message in messages:
            self.checkers.sends(server, message)
            self.network.send(message)

    def _deliver(self, to: int, message: Message) -> None:
        server = self.servers.get(to)
        if server is None or not server.is_running:
            self._was_lost(message)
            return
        server.clock.arrive(f"member {message.sender}", server.node.receive, message)
        if message.kind is Kind.SNAPSHOT:
            self._report_snapshot(message, True)

    def _was_lost(self, message: Message) -> None:
        if message.kind is Kind.SNAPSHOT:
            self._report_snapshot(message, False)
        elif message.kind is Kind.APPEND and self.world.chance(0.2):
            sender = self.servers[message.sender]
            sender.clock.callLater(self.world.dice.uniform(0, 0.1), self._report_unreachable, sender, message.to)

    def _report_unreachable(self, sender: SimServer, member: int) -> None:
        if sender.is_running:
            sender.node.report_unreachable(member)

    def _report_snapshot(self, message: Message, delivered: bool) -> None:
        sender = self.servers[message.sender]
        if sender.is_running:
            delay = self.world.dice.uniform(0, 0.3)
            sender.clock.callLater(delay, sender.node.report_snapshot, message.to, delivered)

    # -- what clients know

    def history(self, key: int) -> list[Operation]:
        """The operations on a register."""
        return self._histories[key]

    def new_value(self) -> int:
        """A value that nobody wrote before."""
        self._values += 1
        return self._values

    def note_value(self, key: int, operation: Operation) -> None:
        """A register may hold this value now."""
        value = operation.result if operation.act is Act.READ else operation.value
        self._recent[key] = [*self._recent[key][-2:], value]

    def recent_values(self, key: int) -> list[Value]:
        """What a register may hold."""
        return self._recent[key]

    # -- one history

    def run(self) -> Outcome:
        """Let the history happen; what was found."""
        self.world.after_event = self.checkers.after_event
        violation = ""
        try:
            self._live()
        except Violation as found:
            violation = str(found)
            self.world.log(f"violation: {violation}")
        finally:
            for server in self.servers.values():
                server.end()
        return Outcome(
            self.world.seed,
            violation,
            self.world.lines,
            self.world.digest,
            self.world.events,
            sum(map(len, self._histories.values())),
            self.checkers.elections,
            self.checkers.committed_index,
            self.checkers.states_compared,
            self.faults.counts,
        )

    def _live(self) -> None:
        world, plan = self.world, self.plan
        if not world.run_until(self._try_set_up, 30.0):
            raise Violation("no leader within 30 s of the start")
        clients = [Client(self, f"client {number}") for number in range(plan.clients)]
        for client in clients:
            world.after(world.dice.random(), client.work)
        world.after(world.dice.random(), self.faults.work)
        world.run(world.now + plan.busy_s)
        self.is_busy = False
        self._repair()
        if not world.run_until(self._has_settled, SETTLE_S):
            raise Violation(f"not settled {SETTLE_S:.0f} s after everything was repaired: {self._situation()}")
        self._read_all(clients[0])
        for key, history in self._histories.items():
            verdict = check(history)
            if not verdict.is_linearizable:
                raise Violation(f"register {key} is {verdict}")

    def _try_set_up(self) -> bool:
        """Make the table; whether it is there."""
        leader = self.leader()
        if leader is None or not leader.node.can_serve:
            return False
        if leader.machine.catalog.tables:
            return True
        if not leader.head.catalog.tables:
            place = leader.node.propose(encode(SET_UP, 0))
            leader.head.stage(place[0], SET_UP)
        return False

    def _repair(self) -> None:
        """End all faults; from now on everything is reliable."""
        self.world.log("everything is repaired")
        self.network.heal()
        self.network.weather = Weather()
        for server in self.servers.values():
            server.sync_delay = 0.001
            server.disk.fails_sync = server.disk.is_full = False
            if server.is_running:
                server.clock.go_on()
            self.world.after(0, self.revive, server)

    def _has_settled(self) -> bool:
        """Whether a leader has brought all its members to the same state."""
        leader = self.leader()
        if leader is None or not leader.node.can_serve:
            return not self._can_elect()
        core = leader.node.core
        membership = core.tracker.membership
        if membership.is_joint:
            if not self._is_leaving:
                self._is_leaving = True
                self.world.after(LEAVE_AFTER_S, self._leave_joint)
            return False
        members = [self.servers[member] for member in core.tracker.progress]
        able = [server for server in members if not server.is_broken]
        return all(
            server.is_running
            and server.node.applied_index == core.log.last_index
            and server.node.core.leader_id == leader.id
            for server in able
        )

    def _leave_joint(self) -> None:
        """What an operator does who finds a joint configuration: end it, and change nothing else."""
        self._is_leaving = False
        leader = self.leader()
        if leader is not None and leader.node.core.tracker.membership.is_joint:
            self.faults.membership()

    def _can_elect(self) -> bool:
        """Whether enough disks are left that a leader must come out."""
        return not any(server.is_broken for server in self.servers.values())

    def _situation(self) -> str:
        parts = []
        for server in self.servers.values():
            if server.is_running:
                core = server.node.core
                parts.append(
                    f"{server.id}: {core.role.name} term {core.raft_term} leader {core.leader_id}"
                    f" log {core.log.last_index} commit {core.log.committed} applied {server.node.applied_index}"
                    f" {core.tracker.membership}"
                )
            else:
                parts.append(f"{server.id}: {'broken' if server.is_broken else 'down'}")
        return "; ".join(parts)

    def _read_all(self, client: Client) -> None:
        """Read every register at the end: what was acknowledged must be there."""
        leader = self.leader()
        if leader is None:
            return
        waiting = set(self._histories)
        client.learn(leader, False)
        for key in self._histories:
            client.send(Operation(Act.READ, 0.0, client="the end"), key, partial(waiting.discard, key), "majority")
        if not self.world.run_until(lambda: not waiting, 30.0):
            raise Violation("the last reads get no answer")


def run_seed(seed: int, plan: Plan | None = None) -> Outcome:
    """The history of a seed."""
    logging.getLogger("rewinddb").setLevel(logging.CRITICAL)
    return Simulation(seed, plan).run()
