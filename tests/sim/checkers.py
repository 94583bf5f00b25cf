"""What must hold after every event, whatever fails.

One leader a term; one vote a member and term; logs that agree wherever they have an entry of the same term; what is
committed stays, on a quorum of disks from the moment it is committed, and in the log of every leader;
what is promised to others is on the disk; one state for each applied index.
"""

from __future__ import annotations

from collections.abc import Iterable

from consensus.core import RaftCore, Role
from consensus.messages import Entry, Kind, Message
from tests.sim.server import SimServer
from tests.sim.world import World


class Checkers:
    """Looks at the servers after every event; what it finds ends the run."""

    def __init__(self, world: World, servers: dict[int, SimServer]) -> None:
        self._world = world
        self._servers = servers
        self._leaders: dict[int, int] = {}
        self._votes: dict[tuple[int, int], int] = {}
        self._committed: dict[int, int] = {}
        """The term of the entry at each committed index."""
        self._committed_in: dict[int, int] = {}
        """The term of the leader that committed it."""
        self._written: dict[tuple[int, int], tuple[int, object]] = {}
        self._states: dict[int, tuple[int, int]] = {}
        self.elections = 0
        self.states_compared = 0

    @property
    def committed_index(self) -> int:
        """The highest index known to be committed."""
        return len(self._committed)

    def after_event(self, owner: object) -> None:
        """Look at the server whose event it was if that changed; at all that changed if it was nobody's."""
        for server in (owner,) if isinstance(owner, SimServer) else self._servers.values():
            if server.is_running:
                core = server.node.core
                seen = (core.raft_term, core.role, core.log.committed, server.node.applied_index, core.log.last_index)
                if seen != server.seen:
                    self._look_at(server, core)
                    server.seen = seen

    def _look_at(self, server: SimServer, core: RaftCore) -> None:
        if core.role is Role.LEADER:
            self._check_leader(server, core)
        self._check_committed(server, core)
        if server.node.applied_index != server.checked_applied:
            self._check_state(server, core)
        self._check_written(core.log.entries, core)

    def _fail(self, text: str) -> None:
        self._world.fail(text)

    def _check_leader(self, server: SimServer, core: RaftCore) -> None:
        first = self._leaders.setdefault(core.raft_term, server.id)
        if first != server.id:
            self._fail(f"term {core.raft_term} has two leaders: {first} and {server.id}")
        if server.seen[:2] == (core.raft_term, Role.LEADER):
            return
        self.elections += 1
        self._world.log(f"server {server.id} leads term {core.raft_term}")
        log = core.log
        for index in range(log.first_index(), len(self._committed) + 1):
            # A candidate may learn late that it had won, when newer leaders have long committed more.
            if self._committed_in[index] < core.raft_term and log.term_or_zero(index) != self._committed[index]:
                self._fail(
                    f"leader {server.id} of term {core.raft_term} has term {log.term_or_zero(index)} at the committed"
                    f" index {index}, where term {self._committed[index]} was committed"
                )
                return

    def _check_committed(self, server: SimServer, core: RaftCore) -> None:
        log, known = core.log, self._committed
        if log.committed < server.checked_commit:
            self._fail(f"server {server.id} takes back its commit index {server.checked_commit}")
        start = max(server.checked_commit + 1, log.first_index())
        for index in range(start, log.committed + 1):
            term = log.term_or_zero(index)
            if index not in known:
                if index != len(known) + 1:
                    self._fail(f"server {server.id} commits {index}, but {len(known) + 1} was never seen committed")
                    return
                known[index] = term
                self._committed_in[index] = core.raft_term
                if core.role is Role.LEADER and log.term_or_zero(log.committed) != core.raft_term:
                    self._fail(f"leader {server.id} commits {log.committed}, of an older term, by counting")
                self._check_quorum_has(server, core, index, term)
            elif known[index] != term:
                self._fail(
                    f"server {server.id} commits term {term} at index {index}, where term {known[index]} was committed"
                )
                return
        server.checked_commit = log.committed

    def membership_changes(self, server: SimServer) -> None:
        """A server applies a configuration change: what it committed before was committed by the old members."""
        self._check_committed(server, server.node.core)
        server.membership = server.node.core.tracker.membership

    def _check_quorum_has(self, server: SimServer, core: RaftCore, index: int, term: int) -> None:
        """The one who commits first is a leader: its quorum must have the entry on disk."""
        missing = ""
        for membership in (core.tracker.membership, server.membership):
            missing = ""
            for half in (membership.voters, membership.outgoing):
                having = [member for member in half if self._servers[member].has_durable(index, term)]
                if half and len(having) * 2 <= len(half):
                    missing = f"of the voters {sorted(half)} only {sorted(having)} have it on disk"
            if not missing:
                return
        self._fail(f"index {index} of term {term} is committed by {server.id}, but {missing}")

    def _check_state(self, server: SimServer, core: RaftCore) -> None:
        applied = server.node.applied_index
        if applied < server.checked_applied:
            self._fail(f"server {server.id} goes back from applied index {server.checked_applied} to {applied}")
        if applied > core.log.committed:
            self._fail(f"server {server.id} applies {applied}, but only {core.log.committed} is committed")
        server.checked_applied = applied
        state = hash(tuple(server.engine._table.items()))
        owner, known = self._states.setdefault(applied, (server.id, state))
        self.states_compared += owner != server.id
        if known != state:
            self._fail(f"servers {owner} and {server.id} differ in their state as of index {applied}")

    def _check_written(self, entries: Iterable[Entry], core: RaftCore) -> None:
        """The same index and term is the same entry, behind the same entry, on every server."""
        written = self._written
        previous: int | None = None
        for entry in entries:
            if previous is None:
                previous = core.log.term_or_zero(entry.index - 1)
            here = (previous, (entry.kind, entry.data))
            there = written.setdefault((entry.index, entry.raft_term), here)
            if there is not here and there != here:
                self._fail(f"two entries have index {entry.index} and term {entry.raft_term}")
            previous = entry.raft_term

    # -- what is promised

    def sends(self, server: SimServer, message: Message) -> None:
        """A server sends a message: its promises must be on the disk."""
        kind = message.kind
        if message.reject:
            return
        if kind is Kind.VOTE_REPLY:
            place = (server.id, message.raft_term)
            first = self._votes.setdefault(place, message.to)
            if first != message.to:
                self._fail(f"server {server.id} votes for {first} and {message.to} in term {message.raft_term}")
            raft_term, vote = server.durable_vote
            if raft_term < message.raft_term or (raft_term == message.raft_term and vote != message.to):
                self._fail(f"server {server.id} gives a vote that is not on its disk")
        elif kind is Kind.APPEND_REPLY and not server.has_durable_index(message.index):
            self._fail(f"server {server.id} acknowledges index {message.index}, which is not on its disk")
