"""Is a history of operations on one register linearizable? Wing and Gong's search with Lowe's memory.

Operations overlap in real time; the question is whether some order of them, in which no operation moves
in front of one that had ended before it began, gives every result that was seen. The search takes
operations in order as long as their results fit, goes back where they do not, and never looks twice at
the same set of operations with the same value. An operation whose outcome nobody knows may have
happened at any later time, or never.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from math import inf
from typing import Final

Value = int | None


class Act(Enum):
    """What is done to a register."""

    READ = "read"
    WRITE = "write"
    CAS = "cas"


@dataclass(slots=True, eq=False)
class Operation:
    """One operation on one register, as its client saw it.

    `expected` is a compare-and-set's condition, `value` what is written. `result` is what was read, or whether
    a compare-and-set wrote. While `returned` is infinite the outcome is unknown.
    """

    act: Act
    called: float
    value: Value = None
    expected: Value = None
    returned: float = inf
    result: Value | bool = None
    client: str = ""

    @property
    def is_known(self) -> bool:
        """Whether the client got an answer."""
        return self.returned != inf

    def apply(self, state: Value) -> tuple[bool, Value]:
        """Whether this may happen to a register that holds `state`, and what it holds then."""
        if self.act is Act.READ:
            return not self.is_known or self.result == state, state
        if self.act is Act.WRITE:
            return True, self.value
        matched = state == self.expected
        return not self.is_known or self.result == matched, self.value if matched else state

    def __str__(self) -> str:
        what = {
            Act.READ: "read",
            Act.WRITE: f"write {self.value}",
            Act.CAS: f"cas {self.expected} to {self.value}",
        }[self.act]
        ended = f"{self.returned:.3f}" if self.is_known else "?"
        outcome = f" = {self.result}" if self.is_known and self.act is not Act.WRITE else ""
        return f"[{self.called:.3f} .. {ended}] {self.client} {what}{outcome}"


class _Event:
    """A call or a return in a doubly linked list, in the order of time."""

    __slots__ = ("after", "before", "match", "number")

    def __init__(self, number: int) -> None:
        self.number = number
        self.match: _Event | None = None  # of a call: its return
        self.before: _Event
        self.after: _Event | None = None


def _linked(operations: Sequence[Operation]) -> _Event:
    """The head of the list of all calls and returns."""
    moments: list[tuple[float, int, _Event]] = []
    for number, operation in enumerate(operations):
        call, back = _Event(number), _Event(number)
        call.match = back
        # A call at the moment of another's return counts as overlapping it.
        moments += [(operation.called, 0, call), (operation.returned, 1, back)]
    moments.sort(key=lambda moment: (moment[0], moment[1], moment[2].number))
    head = last = _Event(-1)
    for _, _, event in moments:
        last.after, event.before = event, last
        last = event
    return head


def _lift(call: _Event) -> None:
    """Take a call and its return out of the list."""
    assert call.match is not None
    for event in (call, call.match):
        event.before.after = event.after
        if event.after is not None:
            event.after.before = event.before


def _put_back(call: _Event) -> None:
    """Undo `_lift`."""
    assert call.match is not None
    for event in (call.match, call):
        event.before.after = event
        if event.after is not None:
            event.after.before = event


NOTHING: Final[Value] = None
"""What a register holds before anything is written."""

MOST_STEPS: Final = 400_000
"""A search that takes longer is given up: no order was found."""


@dataclass(slots=True)
class Verdict:
    """Whether a history is linearizable; if not, the longest start that is, and what could not follow it."""

    is_linearizable: bool
    longest: list[Operation] = field(default_factory=list)
    stuck: list[Operation] = field(default_factory=list)

    def __str__(self) -> str:
        if self.is_linearizable:
            return "linearizable"
        fits = "\n".join(f"  {operation}" for operation in self.longest[-8:])
        rest = "\n".join(f"  {operation}" for operation in self.stuck[:8])
        return f"not linearizable; this order fits (its end):\n{fits}\nand none of these can follow:\n{rest}"


def check(history: Iterable[Operation], start: Value = NOTHING) -> Verdict:
    """Search an order for the operations on one register that holds `start` before all of them.

    An operation of unknown outcome whose value nobody saw may be taken for never done: that it happened
    after all others fits as well. Only where no order is found so, it is tried at other times too.
    """
    operations = [each for each in history if each.is_known or each.act is not Act.READ]
    shown = {each.result for each in operations if each.is_known and each.act is Act.READ}
    shown |= {each.expected for each in operations if each.is_known and each.act is Act.CAS and each.result}
    visible = [each for each in operations if each.is_known or each.value in shown]
    verdict = _search(visible, start)
    if verdict.is_linearizable or len(visible) == len(operations):
        return verdict
    full = _search(operations, start)
    return full if full.is_linearizable else verdict


def _search(operations: Sequence[Operation], start: Value) -> Verdict:
    head = _linked(operations)
    state, taken = start, 0
    order: list[tuple[_Event, Value]] = []
    seen: set[tuple[int, Value]] = set()
    longest: list[int] = []
    event = head.after
    for _ in range(MOST_STEPS):
        if event is None:
            return Verdict(True, [operations[each.number] for each, _ in order])
        if event.match is not None:
            fits, following = operations[event.number].apply(state)
            taken_then = taken | 1 << event.number
            if fits and (taken_then, following) not in seen:
                seen.add((taken_then, following))
                order.append((event, state))
                state, taken = following, taken_then
                _lift(event)
                event = head.after
            else:
                event = event.after
            continue
        # A return whose call found no place: what was chosen last was wrong.
        if len(order) > len(longest):
            longest = [each.number for each, _ in order]
        if not order:
            break
        last, state = order.pop()
        taken &= ~(1 << last.number)
        _put_back(last)
        event = last.after
    rest = [operation for number, operation in enumerate(operations) if number not in set(longest)]
    stuck = sorted((each for each in rest if each.is_known), key=lambda each: each.returned)
    return Verdict(False, [operations[number] for number in longest], stuck)
