"""One member whose peers are played by the test: messages in, messages out, the disk always instant."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from consensus.core import Config, RaftCore
from consensus.memory import MemoryStorage
from consensus.messages import ConfState, Entry, EntryKind, HardState, Kind, Message, Snapshot, decode_conf_change

PLAIN = Config(
    1,
    election_ticks=10,
    heartbeat_ticks=1,
    group_sends=False,
    check_quorum=False,
    pre_vote=False,
    hold_votes_at_start=False,
)
"""Raft as in the paper, without the later protections."""


class Lone:
    """Member 1 of a group; `sent` collects what it sends, `applied` what it applies."""

    def __init__(
        self,
        voters: Sequence[int] = (1, 2, 3),
        terms: Sequence[int] = (),
        config: Config = PLAIN,
        hard_state: HardState | None = None,
        learners: Sequence[int] = (),
        **changes: object,
    ) -> None:
        """`terms` are the terms of the entries the log starts with, from index 1 on."""
        self.config = replace(config, **changes)  # type: ignore[arg-type]
        self.storage = MemoryStorage()
        self.storage.apply_snapshot(Snapshot(0, 0, ConfState(tuple(voters), tuple(learners))))
        self.storage.append([Entry(at + 1, term, data=b"old") for at, term in enumerate(terms)])
        if hard_state is not None:
            self.storage.set_hard_state(hard_state)
        self.sent: list[Message] = []
        self.applied: list[Entry] = []
        self.core = RaftCore(self.config, self.storage)

    def restart(self) -> None:
        """Crash and start again from what is on disk; the state machine lost everything."""
        self.applied = []
        self.core = RaftCore(self.config, self.storage)

    def settle(self) -> None:
        """Do all there is to do."""
        core, storage = self.core, self.storage
        while core.has_ready():
            ready = core.ready()
            self.sent += ready.messages
            if ready.hard_state is not None:
                storage.set_hard_state(ready.hard_state)
            if ready.snapshot is not None:
                storage.apply_snapshot(ready.snapshot)
            storage.append(ready.entries)
            core.synced(ready)
            self.sent += ready.messages_after_sync
            for entry in ready.committed_entries:
                self.applied.append(entry)
                if entry.kind is not EntryKind.NORMAL:
                    core.apply_conf_change(decode_conf_change(entry.data))
            core.applied(ready)

    def take(self) -> list[Message]:
        """What was sent since the last call."""
        self.settle()
        sent, self.sent = self.sent, []
        return sent

    def tell(self, kind: Kind, sender: int, raft_term: int, **fields: object) -> list[Message]:
        """A message comes in; what the member sends for it."""
        self.core.step(Message(kind, self.core.id, sender, raft_term, **fields))  # type: ignore[arg-type]
        return self.take()

    def tick(self, ticks: int = 1) -> list[Message]:
        """Time passes; what the member sends."""
        for _ in range(ticks):
            self.core.tick()
        return self.take()

    def lead(self, raft_term: int = 1) -> list[Message]:
        """Win the election of a term, with every vote; what is sent to the others once it leads."""
        while self.core.raft_term < raft_term:
            self.core.campaign()
            self.settle()
        self.sent = []
        for member in self.core.others:
            self.core.step(Message(Kind.VOTE_REPLY, self.core.id, member, raft_term))
        return self.take()

    def acknowledge(self, members: Iterable[int] | None = None) -> list[Message]:
        """Some members, or all, have all entries; what is sent for that."""
        for member in self.core.others if members is None else members:
            reply = Message(
                Kind.APPEND_REPLY, self.core.id, member, self.core.raft_term, index=self.core.log.last_index
            )
            self.core.step(reply)
        return self.take()

    def log_terms(self) -> list[int]:
        """The terms of the entries on disk."""
        first, last = self.storage.first_index(), self.storage.last_index()
        return [self.storage.term(index) for index in range(first, last + 1)]


def of(messages: Iterable[Message], kind: Kind) -> list[Message]:
    """The messages of one kind."""
    return [message for message in messages if message.kind is kind]
