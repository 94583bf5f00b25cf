"""The text forms of messages, entries and states that transcripts are written in."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

from consensus.core import Ready, Role, SoftState
from consensus.messages import (
    NO_MEMBER,
    STORAGE,
    BadMessage,
    Change,
    ChangeKind,
    ConfState,
    Entry,
    EntryKind,
    HardState,
    Kind,
    Message,
    Snapshot,
    decode_conf_change,
)
from consensus.tracker import Flow, Progress

KIND_NAMES = {
    Kind.HUP: "MsgHup",
    Kind.BEAT: "MsgBeat",
    Kind.PROPOSE: "MsgProp",
    Kind.APPEND: "MsgApp",
    Kind.APPEND_REPLY: "MsgAppResp",
    Kind.VOTE: "MsgVote",
    Kind.VOTE_REPLY: "MsgVoteResp",
    Kind.SNAPSHOT: "MsgSnap",
    Kind.HEARTBEAT: "MsgHeartbeat",
    Kind.HEARTBEAT_REPLY: "MsgHeartbeatResp",
    Kind.UNREACHABLE: "MsgUnreachable",
    Kind.SNAPSHOT_STATUS: "MsgSnapStatus",
    Kind.CHECK_QUORUM: "MsgCheckQuorum",
    Kind.TRANSFER: "MsgTransferLeader",
    Kind.TIMEOUT_NOW: "MsgTimeoutNow",
    Kind.READ_INDEX: "MsgReadIndex",
    Kind.READ_INDEX_REPLY: "MsgReadIndexResp",
    Kind.PRE_VOTE: "MsgPreVote",
    Kind.PRE_VOTE_REPLY: "MsgPreVoteResp",
    Kind.STORAGE_APPENDED: "MsgStorageAppendResp",
    Kind.STORAGE_APPLIED: "MsgStorageApplyResp",
    Kind.FORGET_LEADER: "MsgForgetLeader",
}
KINDS = {name: kind for kind, name in KIND_NAMES.items()}
ROLE_NAMES = {
    Role.FOLLOWER: "StateFollower",
    Role.CANDIDATE: "StateCandidate",
    Role.LEADER: "StateLeader",
    Role.PRE_CANDIDATE: "StatePreCandidate",
}
ENTRY_NAMES = {
    EntryKind.NORMAL: "EntryNormal",
    EntryKind.CONF_CHANGE: "EntryConfChange",
    EntryKind.CONF_CHANGE_V2: "EntryConfChangeV2",
}
CHANGE_LETTERS = {
    "v": ChangeKind.ADD_VOTER,
    "l": ChangeKind.ADD_LEARNER,
    "r": ChangeKind.REMOVE,
    "u": ChangeKind.UPDATE,
}
_LETTERS = {kind: letter for letter, kind in CHANGE_LETTERS.items()}


def changes_of(text: str) -> tuple[Change, ...]:
    """`v1 l2 r3 u4`: make 1 a voter, 2 a learner, remove 3, update 4."""
    return tuple(Change(CHANGE_LETTERS[word[0]], int(word[1:])) for word in text.split())


def entry_text(entry: Entry) -> str:
    """`term/index kind data`."""
    if entry.kind is EntryKind.NORMAL:
        data = json.dumps(entry.data.decode())
    else:
        try:
            changes = decode_conf_change(entry.data).changes
            data = " ".join(f"{_LETTERS[change.kind]}{change.member_id}" for change in changes)
        except BadMessage as error:
            data = str(error)
    return f"{entry.raft_term}/{entry.index} {ENTRY_NAMES[entry.kind]} {data}".rstrip()


def entries_text(entries: Iterable[Entry]) -> str:
    """One entry a line."""
    return "".join(entry_text(entry) + "\n" for entry in entries)


def _list(ids: Iterable[int]) -> str:
    return "[" + " ".join(map(str, ids)) + "]"


def conf_state_text(state: ConfState) -> str:
    """Who votes and listens."""
    return (
        f"Voters:{_list(state.voters)} VotersOutgoing:{_list(state.voters_outgoing)}"
        f" Learners:{_list(state.learners)} LearnersNext:{_list(state.learners_next)}"
        f" AutoLeave:{str(state.auto_leave).lower()}"
    )


def snapshot_text(snapshot: Snapshot) -> str:
    """Where a snapshot ends and who was a member."""
    return f"Index:{snapshot.index} Term:{snapshot.raft_term} ConfState:{conf_state_text(snapshot.conf)}"


def hard_state_text(state: HardState) -> str:
    """Term, vote if there is one, commit index."""
    vote = f" Vote:{state.vote}" if state.vote else ""
    return f"Term:{state.raft_term}{vote} Commit:{state.commit}"


def soft_state_text(state: SoftState) -> str:
    """Leader and role."""
    return f"Lead:{state.leader_id} State:{ROLE_NAMES[state.role]}"


def _member(member: int, kind: Kind | None = None) -> str:
    if member == STORAGE:
        return "ApplyThread" if kind is Kind.STORAGE_APPLIED else "AppendThread"
    return "None" if member == NO_MEMBER else f"{member:x}"


def head_text(
    route: str, name: str, message: Message, vote: int = 0, responses: Iterable[str] = (), indent: str = ""
) -> str:
    """The form that all messages share, also those to the local disk."""
    text = f"{indent}{route} {name} Term:{message.raft_term} Log:{message.log_term}/{message.index}"
    if message.reject:
        text += f" Rejected (Hint: {message.hint})"
    if message.commit:
        text += f" Commit:{message.commit}"
    if vote:
        text += f" Vote:{vote}"
    if len(message.entries) == 1:
        text += f" Entries:[{entry_text(message.entries[0])}]"
    elif message.entries:
        lines = "".join(f"\n{indent}  {entry_text(entry)}" for entry in message.entries)
        text += f" Entries:[{lines}\n{indent}]"
    if message.snapshot is not None and message.snapshot.index:
        text += f"\n{indent}  Snapshot: {snapshot_text(message.snapshot)}"
    inner = "".join("\n" + response for response in responses)
    return text + (f" Responses:[{inner}\n{indent}]" if inner else "")


def message_text(message: Message, indent: str = "") -> str:
    """One message."""
    route = f"{_member(message.sender, message.kind)}->{_member(message.to)}"
    return head_text(route, KIND_NAMES[message.kind], message, indent=indent)


def ready_text(ready: Ready, messages: Iterable[str]) -> str:
    """All that a `Ready` asks for; `messages` are the ones it sends, as text."""
    text = ""
    if ready.soft_state:
        text += soft_state_text(ready.soft_state) + "\n"
    if ready.hard_state:
        text += f"HardState {hard_state_text(ready.hard_state)}\n"
    if ready.entries:
        text += "Entries:\n" + entries_text(ready.entries)
    if ready.snapshot:
        text += f"Snapshot {snapshot_text(ready.snapshot)}\n"
    if ready.committed_entries:
        text += "CommittedEntries:\n" + entries_text(ready.committed_entries)
    sent = "".join(message + "\n" for message in messages)
    if sent:
        text += "Messages:\n" + sent
    return f"Ready MustSync={str(ready.must_sync).lower()}:\n{text}" if text else "<empty Ready>"


def progress_text(progress: Mapping[int, Progress]) -> str:
    """What a leader knows of its members, one a line."""
    text = ""
    for member, each in sorted(progress.items()):
        text += f"{member}: {each.flow.value} match={each.match} next={each.next}"
        text += " learner" * each.is_learner + " paused" * each.is_paused
        if each.pending_snapshot and each.flow is Flow.SNAPSHOT:
            text += f" pendingSnap={each.pending_snapshot}"
        text += " inactive" * (not each.recent_active)
        if len(each.inflights):
            text += f" inflight={len(each.inflights)}" + "[full]" * each.inflights.is_full
        text += "\n"
    return text
