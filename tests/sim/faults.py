"""What goes wrong, and what an operator does: each fault is a method, chosen by the dice of the seed.

Faults come and go; at the end of the busy time all are repaired but lost disks, and members that are
to go are gone.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from consensus.messages import Change, ChangeKind, ConfChange, Transition
from model.errors import NotLeader, Overloaded
from tests.sim.network import Weather
from tests.sim.server import SimServer

if TYPE_CHECKING:
    from tests.sim.simulation import Simulation

MOST_SERVERS = 7
ADD, REMOVE, LEARN = ChangeKind.ADD_VOTER, ChangeKind.REMOVE, ChangeKind.ADD_LEARNER


class Faults:
    """The hand that breaks things."""

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        self._world = simulation.world
        self._dice = simulation.world.dice
        self._impatience = random.Random(simulation.world.seed)
        self.counts: dict[str, int] = {}

    def work(self) -> None:
        """Let something happen, then plan the next time."""
        simulation, world = self._simulation, self._world
        if not simulation.is_busy:
            return
        plan = simulation.plan
        if plan.faults:
            name = self._dice.choice(plan.faults)
            if getattr(self, name)():
                self.counts[name] = self.counts.get(name, 0) + 1
        world.after(self._dice.expovariate(1 / plan.fault_every_s), self.work)

    def _some_time(self, longest: float = 4.0) -> float:
        return self._dice.uniform(0.05, longest)

    def _victim(self) -> SimServer | None:
        """Any running server, often the leader."""
        leader = self._simulation.leader()
        if leader is not None and self._world.chance(0.4):
            return leader
        running = self._simulation.running()
        return self._dice.choice(running) if running else None

    # -- the network

    def weather(self) -> bool:
        """Lose, repeat, delay and reorder for a while."""
        network = self._simulation.network
        if network.weather != Weather():
            return False
        network.weather = Weather(
            loss=self._dice.choice([0.0, 0.05, 0.3]),
            repeat=self._dice.choice([0.0, 0.1]),
            delay_max=self._dice.choice([0.005, 0.05, 0.3]),
            late=self._dice.choice([0.0, 0.05]),
        )
        self._world.log("the weather gets bad")
        self._world.after(self._some_time(), self._clear_up)
        return True

    def _clear_up(self) -> None:
        self._simulation.network.weather = Weather()

    def _heal_later(self, longest: float = 5.0) -> None:
        self._world.after(self._some_time(longest), self._simulation.network.heal)

    def partition(self) -> bool:
        """Cut the servers into two groups."""
        members = [server.id for server in self._simulation.servers.values()]
        self._dice.shuffle(members)
        at = self._dice.randrange(len(members) + 1)
        self._world.log(f"the network splits: {sorted(members[:at])} from {sorted(members[at:])}")
        self._simulation.network.split(members[:at], members[at:])
        self._heal_later()
        return True

    def isolate_leader(self) -> bool:
        """Cut the leader off, or let it only send, or only hear."""
        leader = self._simulation.leader()
        if leader is None:
            return False
        others = [server.id for server in self._simulation.servers.values() if server is not leader]
        network, way = self._simulation.network, self._dice.randrange(3)
        self._world.log(f"leader {leader.id} is cut off ({('both ways', 'cannot send', 'cannot hear')[way]})")
        if way == 2:
            network.split(others, [leader.id], one_way=True)
        else:
            network.split([leader.id], others, one_way=way == 1)
        self._heal_later()
        return True

    def one_way(self) -> bool:
        """Cut some links in one direction."""
        members = [server.id for server in self._simulation.servers.values()]
        for _ in range(self._dice.randrange(1, 4)):
            self._simulation.network.cut.add((self._dice.choice(members), self._dice.choice(members)))
        self._heal_later()
        return True

    # -- processes and machines

    def kill(self) -> bool:
        """kill -9."""
        return self._crash(power=False)

    def power_cut(self) -> bool:
        """One machine loses its power."""
        return self._crash(power=True)

    def _crash(self, power: bool) -> bool:
        server = self._victim()
        if server is None:
            return False
        server.crash(power)
        return True

    def power_cut_all(self) -> bool:
        """All machines lose their power at once."""
        for server in self._simulation.running():
            server.crash(power=True)
        return True

    def stop(self) -> bool:
        """Stop a server in good order, with a hand-over if it leads."""
        server = self._victim()
        if server is None:
            return False
        if server.node.is_leader and server.node.core.others:
            server.node.transfer_leadership(self._dice.choice(server.node.core.others))
        server.stop()
        return True

    def pause(self) -> bool:
        """SIGSTOP, and SIGCONT later."""
        server = self._victim()
        if server is None:
            return False
        self._world.log(f"server {server.id} is paused")
        clock = server.clock
        clock.pause()
        self._world.after(self._some_time(), clock.go_on)
        return True

    def wall_clock(self) -> bool:
        """A server's wall clock jumps."""
        server = self._victim()
        if server is None:
            return False
        server.wall_offset = self._dice.uniform(-1e6, 1e6)
        return True

    # -- disks

    def slow_disk(self) -> bool:
        """A disk takes long to sync."""
        server = self._victim()
        if server is None:
            return False
        server.sync_delay = self._dice.choice([0.02, 0.2, 1.0])
        self._world.log(f"server {server.id} has a slow disk")
        self._world.after(self._some_time(), self._speed_up, server)
        return True

    def _speed_up(self, server: SimServer) -> None:
        server.sync_delay = 0.001

    def failing_sync(self) -> bool:
        """The next sync fails, which ends the process."""
        server = self._victim()
        if server is None:
            return False
        server.disk.fails_sync = True
        return True

    def full_disk(self) -> bool:
        """The next write finds no space, which ends the process."""
        server = self._victim()
        if server is None:
            return False
        server.disk.is_full = True
        return True

    def rot(self) -> bool:
        """A bit flips on the disk of a server that is down; it must not start again. Its place goes to another."""
        simulation = self._simulation
        leader = simulation.leader()
        if leader is None or leader.node.core.tracker.membership.is_joint:
            return False
        voters = leader.node.core.tracker.membership.voters
        lost = [member for member in voters if not simulation.servers[member].is_running]
        server = self._victim()
        if server is None or len(voters) < 3 or lost or simulation.has_lost_disk:
            return False
        server.crash(power=False)
        if server.disk.rot():
            self._world.log(f"the disk of server {server.id} rots")
            server.is_rotten = True
            simulation.has_lost_disk = True
        return True

    # -- the operator

    def transfer(self) -> bool:
        """Hand leadership over."""
        leader = self._simulation.leader()
        if leader is None or not leader.node.core.others:
            return False
        to = self._dice.choice(leader.node.core.others)
        self._world.log(f"leader {leader.id} is asked to hand over to {to}")
        leader.node.transfer_leadership(to)
        return True

    def membership(self) -> bool:
        """Change who belongs to the group; an impatient operator asks for more before the first is done."""
        leader = self._simulation.leader()
        if leader is None or not self._ask_for_change(leader):
            return False
        while self._impatience.random() < 0.4 and self._ask_for_change(leader):
            pass
        return True

    def _ask_for_change(self, leader: SimServer) -> bool:
        change = self._choose_change(leader)
        if change is None:
            return False
        try:
            leader.node.propose_conf_change(change)
        except (NotLeader, Overloaded):
            return False
        names = " ".join(f"{each.kind.name} {each.member_id}" for each in change.changes)
        self._world.log(f"leader {leader.id} is asked for {names or 'leaving the joint configuration'}")
        return True

    def _choose_change(self, leader: SimServer) -> ConfChange | None:
        simulation, dice = self._simulation, self._dice
        membership = leader.node.core.tracker.membership
        if membership.is_joint:
            return None if membership.auto_leave else ConfChange()
        voters, learners = sorted(membership.voters), sorted(membership.learners)
        broken = [member for member in voters + learners if simulation.servers[member].is_broken]
        if broken:
            return ConfChange((Change(REMOVE, broken[0]),))
        fresh = [member for member in learners if simulation.servers[member].is_running]
        choices: list[tuple[Change, ...]] = []
        if len(simulation.alive()) < MOST_SERVERS:
            choices.append((Change(LEARN, 0),))
        if fresh:
            choices.append((Change(ADD, dice.choice(fresh)),))
        if len(voters) > 3:
            choices += [(Change(REMOVE, dice.choice(voters)),), (Change(LEARN, dice.choice(voters)),)]
        if fresh and len(voters) >= 3:
            choices.append((Change(ADD, dice.choice(fresh)), Change(REMOVE, dice.choice(voters))))
            choices.append((Change(ADD, dice.choice(fresh)), Change(LEARN, dice.choice(voters))))
        if not choices:
            return None
        changes = dice.choice(choices)
        if changes == (Change(LEARN, 0),):
            changes = (Change(LEARN, simulation.add_server().id),)
        transition = dice.choice(list(Transition)) if len(changes) > 1 else Transition.AUTO
        return ConfChange(changes, transition)
