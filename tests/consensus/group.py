"""A Raft group driven by hand: every message, disk write and tick happens when a transcript says so."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import NoReturn

from consensus.core import Config, RaftCore, Ready
from consensus.memory import MemoryStorage
from consensus.messages import (
    STORAGE,
    UNLIMITED,
    ConfChange,
    ConfState,
    Entry,
    EntryKind,
    HardState,
    Kind,
    Message,
    Snapshot,
    Transition,
    decode_conf_change,
)
from model.errors import NotLeader, Overloaded
from tests.consensus.describe import (
    KINDS,
    ROLE_NAMES,
    changes_of,
    entries_text,
    head_text,
    message_text,
    progress_text,
    ready_text,
)
from tests.consensus.transcript import Directive

BASE = Config(
    1,
    election_ticks=3,
    heartbeat_ticks=1,
    async_storage_writes=False,
    group_sends=False,
    max_message_bytes=UNLIMITED,
    max_committed_bytes=UNLIMITED,
    max_uncommitted_bytes=0,
    max_inflight_messages=(1 << 31) - 1,
    check_quorum=False,
    pre_vote=False,
    forward_proposals=True,
    step_down_on_removal=False,
    hold_votes_at_start=False,
    dice=lambda sides: sides - 1,
)
"""Every option off, and never an election that nobody asked for."""


class HistoryStorage(MemoryStorage):
    """A log whose snapshot is always the newest state of its member."""

    def __init__(self, history: list[Snapshot]) -> None:
        super().__init__()
        self.history = history

    def snapshot(self) -> Snapshot:
        """The newest state."""
        return self.history[-1]


@dataclass(slots=True)
class Work:
    """A write that waits for the member's disk, or entries that wait for its state machine."""

    text: str
    responses: list[Message]
    hard_state: HardState | None = None
    entries: list[Entry] = field(default_factory=list)
    snapshot: Snapshot | None = None


@dataclass(slots=True)
class Member:
    """One member with its log, its states after every applied entry, and its waiting work."""

    core: RaftCore
    storage: HistoryStorage
    config: Config
    history: list[Snapshot]
    append_work: list[Work] = field(default_factory=list)
    apply_work: list[Work] = field(default_factory=list)

    def append(self, hard_state: HardState | None, entries: list[Entry], snapshot: Snapshot | None) -> None:
        """Write to the log."""
        if hard_state is not None:
            self.storage.set_hard_state(hard_state)
        if snapshot is not None:
            self.storage.apply_snapshot(snapshot)
        else:
            self.storage.append(entries)

    def apply(self, entries: list[Entry]) -> None:
        """Apply to a state that is all data put together."""
        for entry in entries:
            last = self.history[-1]
            conf, data = last.conf, entry.data
            if entry.kind is not EntryKind.NORMAL:
                change = decode_conf_change(entry.data)
                conf, data = self.core.apply_conf_change(change), change.context
            self.history.append(Snapshot(entry.index, entry.raft_term, conf, last.data + data))


LEVELS = ["DEBUG", "INFO", "WARN", "ERROR", "FATAL", "NONE"]


class Group:
    """The members, the messages under way, and what the current directive prints."""

    def __init__(self) -> None:
        self.members: list[Member] = []
        self.messages: list[Message] = []
        self.output = ""
        self.level = 0

    def run(self, directive: Directive) -> str:
        """Do what a directive says; what it prints."""
        self.output = ""
        command: Callable[[Directive], None] = getattr(self, "do_" + directive.command.replace("-", "_"), self._unknown)
        problem = ""
        try:
            command(directive)
        except (NotLeader, Overloaded):
            problem = "raft proposal dropped"
        except ValueError as error:
            problem = str(error)
        return self.output + problem or "ok"

    def _unknown(self, directive: Directive) -> NoReturn:
        raise ValueError(f"unknown command {directive.command}")

    def print(self, text: str, indent: bool = False) -> None:
        """Add to the output, unless everything is silenced."""
        if self.level == LEVELS.index("NONE"):
            return
        if indent:
            text = "".join(f"  {line}\n" for line in text.splitlines())
        self.output += text

    def _one(self, directive: Directive) -> Member:
        return self.members[int(directive.words[0]) - 1]

    def _many(self, directive: Directive) -> list[Member]:
        return [self.members[int(word) - 1] for word in directive.words]

    # -- setting up

    def do_add_nodes(self, directive: Directive) -> None:
        """Add members, if told so with a state they all start from."""
        number = {
            "inflight": "max_inflight_messages",
            "max-committed-size-per-ready": "max_committed_bytes",
        }
        switch = {
            "async-storage-writes": "async_storage_writes",
            "prevote": "pre_vote",
            "checkquorum": "check_quorum",
            "step-down-on-removal": "step_down_on_removal",
        }
        changes: dict[str, object] = {}
        for name in directive.options:
            if name in number:
                changes[number[name]] = int(directive.option(name))
            elif name in switch:
                changes[switch[name]] = directive.flag(name)
        changes["lease_reads"] = directive.option("read-only") == "lease-based"
        changes["validate_conf_changes"] = not directive.flag("disable-conf-change-validation")
        index = int(directive.option("index", "0"))
        voters, learners = (tuple(map(int, directive.options.get(name, []))) for name in ("voters", "learners"))
        start = Snapshot(index, 1 if index else 0, ConfState(voters, learners), directive.option("content").encode())
        if start != Snapshot() and index <= 1:
            raise ValueError("index must be specified as > 1 due to bootstrap")
        for _ in range(int(directive.words[0])):
            history = [start]
            storage = HistoryStorage(history)
            if index:
                storage.apply_snapshot(start)
            config = replace(BASE, member_id=len(self.members) + 1, applied=index, **changes)  # type: ignore[arg-type]
            self.members.append(Member(RaftCore(config, storage), storage, config, history))

    def do_log_level(self, directive: Directive) -> None:
        """How much is printed; NONE silences everything."""
        self._set_level(directive.words[0])

    def _set_level(self, name: str) -> None:
        if name.upper() not in LEVELS:
            raise ValueError(f"log levels must be either of [{' '.join(LEVELS)}]")
        self.level = LEVELS.index(name.upper())

    def do__breakpoint(self, _directive: Directive) -> None:
        """A place to stop a debugger at."""

    # -- what a member does

    def do_campaign(self, directive: Directive) -> None:
        """Start an election."""
        self._one(directive).core.campaign()

    def do_propose(self, directive: Directive) -> None:
        """Propose an entry."""
        self._one(directive).core.propose(directive.words[1].encode())

    def do_propose_conf_change(self, directive: Directive) -> None:
        """Propose a change of the membership."""
        changes = changes_of(directive.input)
        transition = {
            "auto": Transition.AUTO,
            "implicit": Transition.JOINT_IMPLICIT,
            "explicit": Transition.JOINT_EXPLICIT,
        }[directive.option("transition", "auto")]
        kind = EntryKind.CONF_CHANGE_V2
        if directive.flag("v1"):
            if len(changes) > 1 or transition is not Transition.AUTO:
                raise ValueError("v1 conf change can only have one operation and no transition")
            kind = EntryKind.CONF_CHANGE
        self._one(directive).core.propose_conf_change(ConfChange(changes, transition), kind)

    def do_transfer_leadership(self, directive: Directive) -> None:
        """Ask for another leader."""
        member = self.members[int(directive.option("from")) - 1]
        member.core.transfer_leadership(int(directive.option("to")))

    def do_forget_leader(self, directive: Directive) -> None:
        """Stop believing in the leader."""
        self._one(directive).core.forget_leader()

    def do_report_unreachable(self, directive: Directive) -> None:
        """Tell the first member that the second cannot be reached."""
        first, second = self._many(directive)
        first.core.report_unreachable(second.config.member_id)

    def do_tick_election(self, directive: Directive) -> None:
        """An election timeout passes."""
        self._tick(self._one(directive), BASE.election_ticks)

    def do_tick_heartbeat(self, directive: Directive) -> None:
        """A heartbeat interval passes."""
        self._tick(self._one(directive), BASE.heartbeat_ticks)

    def _tick(self, member: Member, ticks: int) -> None:
        for _ in range(ticks):
            member.core.tick()

    def do_set_randomized_election_timeout(self, directive: Directive) -> None:
        """Set the drawn timeout, until the next change of role."""
        self._one(directive).core.election_timeout = int(directive.option("timeout"))

    def do_compact(self, directive: Directive) -> None:
        """Forget the start of a log."""
        self._one(directive).storage.compact(int(directive.words[1]))
        self.do_raft_log(directive)

    def do_send_snapshot(self, directive: Directive) -> None:
        """Send a snapshot that Raft did not ask for."""
        source, target = self._many(directive)
        message = Message(
            Kind.SNAPSHOT,
            target.config.member_id,
            source.config.member_id,
            source.core.raft_term,
            snapshot=source.storage.snapshot(),
        )
        self.messages.append(message)
        self.print(message_text(message))

    # -- what is printed

    def do_raft_log(self, directive: Directive) -> None:
        """The log on disk."""
        storage = self._one(directive).storage
        first, last = storage.first_index(), storage.last_index()
        if last < first:
            self.print(f"log is empty: first index={first}, last index={last}")
        else:
            self.print(entries_text(storage.entries(first, last + 1, UNLIMITED)))

    def do_raft_state(self, _directive: Directive) -> None:
        """Every member's role, as it sees it itself."""
        for member in self.members:
            status = member.core.status()
            is_voter = status.member_id in status.membership.all_voters
            self.print(
                f"{status.member_id}: {ROLE_NAMES[status.soft_state.role]} ({'Voter' if is_voter else 'Non-Voter'})"
                f" Term:{status.hard_state.raft_term} Lead:{status.soft_state.leader_id}\n"
            )

    def do_status(self, directive: Directive) -> None:
        """What a leader knows of its members."""
        self.print(progress_text(self._one(directive).core.status().progress))

    # -- delivering

    def do_deliver_msgs(self, directive: Directive) -> None:
        """Deliver or drop what is under way to some members."""
        kind = KINDS[directive.option("type")] if directive.options.get("type") else None
        count = sum(self._deliver(int(word), kind) for word in directive.words)
        count += sum(self._deliver(int(word), kind, drop=True) for word in directive.options.get("drop", []))
        if not count:
            self.print("no messages\n")

    def _deliver(self, to: int, kind: Kind | None = None, drop: bool = False, indent: bool = False) -> int:
        def wanted(message: Message) -> bool:
            is_local = message.sender in (message.to, STORAGE)
            return message.to == to and not (drop and is_local) and kind in (None, message.kind)

        taken = [message for message in self.messages if wanted(message)]
        self.messages = [message for message in self.messages if not wanted(message)]
        for message in taken:
            self.print(("dropped: " if drop else "") + message_text(message) + "\n", indent)
            if not drop and not self.members[to - 1].core.step(message):
                self.print("raft: cannot step as peer not found\n", indent)
        return len(taken)

    # -- handling a Ready

    def do_process_ready(self, directive: Directive) -> None:
        """Handle a `Ready`: at once, or by handing work to disk and state machine."""
        self._each(directive, "handling Ready", self._process_ready)

    def do_process_append_thread(self, directive: Directive) -> None:
        """Do one waiting write."""
        self._each(directive, "processing append thread", self._process_append)

    def do_process_apply_thread(self, directive: Directive) -> None:
        """Apply one waiting batch."""
        self._each(directive, "processing apply thread", self._process_apply)

    def _each(self, directive: Directive, title: str, action: Callable[[Member, bool], None]) -> None:
        members = self._many(directive)
        for member in members:
            if len(members) > 1:
                self.print(f"> {member.config.member_id} {title}\n")
            action(member, len(members) > 1)

    def _process_ready(self, member: Member, indent: bool = False) -> None:
        replies = list(member.core.messages_after_sync)
        ready = member.core.ready()
        if not member.config.async_storage_writes:
            sent = ready.messages + ready.messages_after_sync
            self.print(ready_text(ready, map(message_text, sent)), indent)
            member.append(ready.hard_state, ready.entries, ready.snapshot)
            member.apply(ready.committed_entries)
            self.messages += sent
            member.core.advance(ready)
            return
        texts = [message_text(message) for message in ready.messages]
        for work, queue in self._work(member, ready, replies):
            texts.append(work.text)
            queue.append(work)
        self.print(ready_text(ready, texts), indent)
        self.messages += ready.messages

    def _work(self, member: Member, ready: Ready, replies: list[Message]) -> list[tuple[Work, list[Work]]]:
        """What a `Ready` hands to disk and state machine, in that order."""
        own, found = member.config.member_id, []
        if ready.needs_write:
            state = ready.hard_state or HardState()
            responses = replies + ([ready.appended] if ready.appended else [])
            head = Message(Kind.HUP, raft_term=state.raft_term, commit=state.commit, entries=ready.entries)
            head.snapshot = ready.snapshot
            text = _work_text(f"{own:x}->AppendThread", "MsgStorageAppend", head, state.vote, responses)
            work = Work(text, responses, ready.hard_state, ready.entries, ready.snapshot)
            found.append((work, member.append_work))
        if ready.committed_entries:
            response = Message(Kind.STORAGE_APPLIED, own, STORAGE, entries=ready.committed_entries)
            head = Message(Kind.HUP, entries=ready.committed_entries)
            text = _work_text(f"{own:x}->ApplyThread", "MsgStorageApply", head, 0, [response])
            found.append((Work(text, [response], entries=ready.committed_entries), member.apply_work))
        return found

    def _process_append(self, member: Member, indent: bool = False) -> None:
        if not member.append_work:
            self.print("no append work to perform", indent)
            return
        work = member.append_work.pop(0)
        member.append(work.hard_state, work.entries, work.snapshot)
        self._finish(work, indent)

    def _process_apply(self, member: Member, indent: bool = False) -> None:
        if not member.apply_work:
            self.print("no apply work to perform", indent)
            return
        work = member.apply_work.pop(0)
        member.apply(work.entries)
        self._finish(work, indent)

    def _finish(self, work: Work, indent: bool) -> None:
        done = work.text.partition(" Responses:[")[0]
        answers = "".join(message_text(message) + "\n" for message in work.responses)
        self.print(f"Processing:\n{done}\nResponses:\n{answers}", indent)
        self.messages += work.responses

    def do_stabilize(self, directive: Directive) -> None:
        """Let some members, or all, do everything there is to do."""
        level = self.level
        if directive.options.get("log-level"):
            self._set_level(directive.option("log-level"))
        members = self._many(directive) or self.members
        while self._round(members):
            pass
        self.level = level

    def _round(self, members: list[Member]) -> bool:
        """One round of work; False if there was none."""
        busy = False
        for member in members:
            if member.core.has_ready():
                self.print(f"> {member.config.member_id} handling Ready\n")
                self._process_ready(member, indent=True)
                busy = True
        for member in members:
            own = member.config.member_id
            if any(message.to == own for message in self.messages):
                self.print(f"> {own} receiving messages\n")
                self._deliver(own, indent=True)
                busy = True
        for title, queue, action in (
            ("processing append thread", "append_work", self._process_append),
            ("processing apply thread", "apply_work", self._process_apply),
        ):
            for member in members:
                if getattr(member, queue):
                    self.print(f"> {member.config.member_id} {title}\n")
                    while getattr(member, queue):
                        action(member, True)
                    busy = True
        return busy


def _work_text(route: str, name: str, head: Message, vote: int, responses: list[Message]) -> str:
    return head_text(route, name, head, vote, [message_text(response, "  ") for response in responses])
