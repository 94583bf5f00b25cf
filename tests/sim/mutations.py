"""Bugs put into the core on purpose: the simulation has to find each of them.

Each replaces one function by one with the mistake; what the mistake is, its name and text say.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

from consensus import candidate, core, leader, quorum, reconfigure, replication, tracker
from consensus.messages import NO_MEMBER, Entry, HardState, Kind, Message
from consensus.raftlog import RaftLog
from consensus.state import RaftState, Role
from consensus.tracker import Tracker
from server.gathering import Gathering
from server.replica import Replica
from storage.head import Head
from wal.writer import LogWriter, _Group


@dataclass(frozen=True, slots=True)
class Mutation:
    """A bug: which attribute of what is replaced by what."""

    name: str
    text: str
    places: tuple[tuple[Any, str, Any], ...]

    @property
    def seed(self) -> int:
        """A history known to show it."""
        return FOUND_BY.get(self.name, 1)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The core with the bug."""
        patches = [patch.object(owner, name, value) for owner, name, value in self.places]
        for each in patches:
            each.start()
        try:
            yield
        finally:
            for each in reversed(patches):
                each.stop()


MUTATIONS: list[Mutation] = []

FOUND_BY = {
    "votes_twice": 26,
    "commits_older_terms": 21,
    "half_is_enough": 2,
    "ignores_outgoing_voters": 81,
    "ignores_newer_terms": 11,
    "changes_members_at_will": 44,
    "never_ending_lease": 26,
    "reads_without_quorum": 6,
    "reads_too_early": 161,
    "hides_gathered_rows": 4,
    "confirms_refused_writes": 27,
    "proposes_gathered_writes_late": 4,
    "trusts_a_failed_sync": 22,
    "votes_for_any_log": 3,
    "counts_itself_early": 10,
    "skips_log_matching": 8,
}
"""A seed for each bug, so that the test need not search; any change of the simulation may move them."""


def mutation(text: str, *places: tuple[Any, str]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register the decorated function as a bug in all of these places."""

    def register(value: Callable[..., Any]) -> Callable[..., Any]:
        given = tuple((owner, name, value) for owner, name in places)
        MUTATIONS.append(Mutation(value.__name__, text, given))
        return value

    return register


def rule_mutation(text: str, *places: tuple[Role, Kind]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register the decorated function as the core's rule for these roles and kinds."""

    def register(value: Callable[..., Any]) -> Callable[..., Any]:
        rules = [list(row) for row in core.RULES]
        for role, kind in places:
            rules[role][kind] = value
        MUTATIONS.append(Mutation(value.__name__, text, ((core, "RULES", rules),)))
        return value

    return register


# -- elections


@rule_mutation("a member votes as often as it is asked", (Role.FOLLOWER, Kind.VOTE))
def votes_twice(raft: RaftState, message: Message) -> None:
    raft.vote = raft.leader_id = NO_MEMBER
    candidate.on_vote_request(raft, message)


@mutation("a vote is given whatever the candidate's log lacks", (RaftLog, "is_up_to_date"))
def votes_for_any_log(_log: RaftLog, _index: int, _raft_term: int) -> bool:
    return True


@mutation("the vote is not kept on disk", (core.RaftCore, "_changed_hard_state"))
def forgets_its_vote(raft: core.RaftCore) -> HardState | None:
    changed = _changed_hard_state(raft)
    return changed and HardState(changed.raft_term, NO_MEMBER, changed.commit)


_changed_hard_state = core.RaftCore._changed_hard_state
_send = RaftState.send


@mutation("a vote leaves before it is on disk", (RaftState, "send"))
def votes_before_sync(raft: RaftState, message: Message) -> None:
    _send(raft, message)
    if message.kind is Kind.VOTE_REPLY and message.to != raft.id:
        raft.messages.append(raft.messages_after_sync.pop())


_reset = RaftState.reset


@mutation("votes of an older election still count", (RaftState, "reset"))
def keeps_old_votes(raft: RaftState, raft_term: int) -> None:
    votes = raft.tracker.votes
    _reset(raft, raft_term)
    raft.tracker.votes = votes


# -- replication


@mutation("entries are acknowledged before they are on disk", (RaftState, "send"))
def acknowledges_before_sync(raft: RaftState, message: Message) -> None:
    _send(raft, message)
    if message.kind is Kind.APPEND_REPLY and message.to != raft.id:
        raft.messages.append(raft.messages_after_sync.pop())


_append_new = RaftState.append_new


@mutation("a leader counts its own entries before they are on its disk", (RaftState, "append_new"))
def counts_itself_early(raft: RaftState, items: list[Any]) -> bool:
    appended = _append_new(raft, items)
    raft.tracker.progress[raft.id].match = raft.log.last_index
    return appended


@mutation(
    "entries of an older term are committed by counting",
    (replication, "try_commit"),
    (leader, "try_commit"),
    (reconfigure, "try_commit"),
)
def commits_older_terms(raft: RaftState) -> bool:
    index = raft.tracker.committed()
    if index <= raft.log.committed:
        return False
    raft.log.commit_to(index)
    return True


@mutation("half of the members are a majority", (tracker, "majority_of"))
def half_is_enough(indexes: list[int]) -> int:
    return sorted(indexes)[len(indexes) // 2] if indexes else 1 << 62


@mutation("a joint configuration needs only its new members", (Tracker, "committed"))
def ignores_outgoing_voters(self: Tracker) -> int:
    return quorum.majority_of([self.progress[voter].match for voter in self.membership.voters])


@mutation("entries are taken whatever stands before them", (RaftLog, "try_append"))
def skips_log_matching(
    log: RaftLog, previous: int, _previous_term: int, entries: list[Entry], committed: int
) -> int | None:
    if previous > log.last_index:
        return None
    if entries:
        log.append(entries)
    agreed = previous + len(entries)
    log.commit_to(min(committed, agreed))
    return agreed


@mutation("entries that conflict are kept", (RaftLog, "try_append"))
def keeps_conflicting_entries(
    log: RaftLog, previous: int, previous_term: int, entries: list[Entry], committed: int
) -> int | None:
    if not log.matches(previous, previous_term):
        return None
    new = [entry for entry in entries if entry.index > log.last_index]
    if new:
        log.append(new)
    agreed = previous + len(entries)
    log.commit_to(min(committed, agreed))
    return agreed


@mutation(
    "a heartbeat tells the commit index to a member that may not have the entries",
    (leader, "broadcast_heartbeat"),
    (replication, "broadcast_heartbeat"),
)
def heartbeats_commit_anything(raft: RaftState) -> None:
    context, stamp = raft.reads.context(), raft.clock()
    for member in raft.others:
        raft.send(Message(Kind.HEARTBEAT, member, commit=raft.log.committed, context=context, stamp=stamp))


@mutation("a leader stays one though it hears of a newer term", (core.RaftCore, "_on_higher_term"))
def ignores_newer_terms(raft: core.RaftCore, message: Message) -> bool:
    if raft.role is Role.LEADER:
        return False
    return _on_higher_term(raft, message)


_on_higher_term = core.RaftCore._on_higher_term


# -- membership


@mutation("a configuration change is proposed while another one waits", (leader, "_conf_change_problem"))
def changes_members_at_will(_raft: RaftState, _change: Any) -> str:
    return ""


# -- reads


@mutation("a leader always has the lease", (replication, "has_lease"), (leader, "has_lease"))
def never_ending_lease(raft: RaftState) -> bool:
    return raft.role is Role.LEADER


@mutation("reads are answered without asking the others", (leader, "_confirm_read"))
def reads_without_quorum(raft: RaftState, message: Message) -> None:
    leader.answer_read(raft, message, raft.log.committed)


def reads_too_early(_raft: RaftState) -> bool:
    return True


MUTATIONS.append(
    Mutation(
        "reads_too_early",
        "a new leader answers reads before it knows what is committed",
        ((RaftState, "has_committed_in_term", property(reads_too_early)),),
    )
)


# -- the log


@mutation("a sync that the kernel could not make counts as made", (LogWriter, "_short_synced"))
def trusts_a_failed_sync(writer: LogWriter, group: _Group, _error: OSError | None) -> None:
    _short_synced(writer, group, None)


@mutation("a short group is told as synced once it is written", (LogWriter, "_write_short"))
def tells_before_the_sync(writer: LogWriter, items: Any) -> bool:
    is_written = _write_short(writer, items)
    group = writer._under_way
    if is_written and group is not None:
        callbacks, group.callbacks = group.callbacks, []
        for done in callbacks:
            done()
    return is_written


_short_synced = LogWriter._short_synced
_write_short = LogWriter._write_short


# -- writes that share an entry


class _HiddenRows(dict[Any, Any]):
    """Rows that are put in, and not seen."""

    def __bool__(self) -> bool:
        return False


@mutation("a write does not see those that are gathered before it", (Head, "__init__"))
def hides_gathered_rows(head: Head, store: Any) -> None:
    _head(head, store)
    head.gathered = _HiddenRows()


@mutation("gathered writes that were refused are told as done", (Replica, "_refuse"))
def confirms_refused_writes(replica: Replica, gathering: Gathering, _error: Exception) -> None:
    _refuse(replica, gathering, None)


@mutation("what is gathered is proposed after what came later", (Replica, "_close_gathering"))
def proposes_gathered_writes_late(_replica: Replica) -> None: ...


_head = Head.__init__
_refuse: Any = Replica._refuse
