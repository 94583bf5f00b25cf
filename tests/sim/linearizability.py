"""Is a history of operations on one object linearizable? Wing and Gong's search with Lowe's memory.

The object is a number: a register that is read, written and compared and set, a counter that is added to, or a
set of small numbers as the bits of one.

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
    """What is done to a register, a counter or a set. A counter or set that holds nothing is 0."""

    READ = "read"
    WRITE = "write"
    CAS = "cas"
    ADD = "add"
    """`value` is added; the result is the sum."""
    INSERT = "insert"
    """The bits of `value` are set; the result is all that are set then."""
    DELETE = "delete"
    """The bits of `value` are cleared; the result is all that are set then."""


_OF_REGISTERS: Final = (Act.READ, Act.WRITE, Act.CAS)


@dataclass(slots=True, eq=False)
class Operation:
    """One operation on one object, as its client saw it.

    `expected` is a compare-and-set's condition, `value` what is written. `result` is what was read, whether
    a compare-and-set wrote, or what a counter or set holds then. While `returned` is infinite the outcome is unknown.
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
        """Whether this may happen to an object that holds `state`, and what it holds then."""
        if self.act is Act.READ:
            return not self.is_known or self.result == state, state
        if self.act is Act.WRITE:
            return True, self.value
        if self.act is Act.CAS:
            matched = state == self.expected
            return not self.is_known or self.result == matched, self.value if matched else state
        held, value = state or 0, self.value or 0
        if self.act is Act.ADD:
            held += value
        else:
            held = held | value if self.act is Act.INSERT else held & ~value
        return not self.is_known or self.result == held, held

    def __str__(self) -> str:
        what = self.act.value
        if self.act is not Act.READ:
            what += f" {self.expected} to {self.value}" if self.act is Act.CAS else f" {self.value}"
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

HIDDEN: Final[Value] = -1
"""A value that nobody saw."""

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
    """Search an order for the operations on one object that holds `start` before all of them.

    Of a register, operations of unknown outcome whose value nobody saw or expected are hidden: they are all the
    same to the rest, and only a compare-and-set that failed can tell that one of them happened. So they are not
    searched through, but taken where such a one needs them.
    """
    operations = [each for each in history if each.is_known or each.act is not Act.READ]
    shown = {each.result for each in operations if each.is_known and each.act is Act.READ}
    shown |= {each.expected for each in operations if each.act is Act.CAS}
    if any(each.act not in _OF_REGISTERS for each in operations):
        shown |= {each.value for each in operations}
    visible = [each for each in operations if each.is_known or each.value in shown]
    hidden = [each for each in operations if not each.is_known and each.value not in shown]
    return _Search(visible, hidden, start).run()


class _Search:
    def __init__(self, operations: Sequence[Operation], hidden: Sequence[Operation], start: Value) -> None:
        self._operations = operations
        # The least useful first: what needs a certain value, then what came last.
        self._hidden = sorted(hidden, key=lambda each: (each.act is Act.WRITE, -each.called))
        self._state = start
        self._taken = 0
        """The operations in the order so far, as bits; the hidden ones behind the others."""

    def _following(self, number: int) -> tuple[bool, Value, int]:
        """Whether an operation fits next; then the value and the operations taken."""
        operation, state = self._operations[number], self._state
        fits, following = operation.apply(state)
        taken = self._taken | 1 << number
        if fits or operation.act is not Act.CAS or operation.result or state == HIDDEN:
            return fits, following, taken
        for position, each in enumerate(self._hidden):
            bit = 1 << len(self._operations) + position
            is_possible = each.called <= operation.returned and (each.act is Act.WRITE or each.expected == state)
            if is_possible and not taken & bit:
                return True, HIDDEN, taken | bit
        return False, state, taken

    def _first(self, head: _Event) -> tuple[_Event | None, bool]:
        """What to try first of the calls before the first return, and whether it can be taken for good."""
        event = head.after
        while event is not None and event.match is not None:
            operation = self._operations[event.number]
            if operation.is_known and (operation.act is Act.READ or operation.result is False):
                fits, following, taken = self._following(event.number)
                if fits and following == self._state and taken == self._taken | 1 << event.number:
                    return event, True
            event = event.after
        return head.after, False

    def run(self) -> Verdict:
        """Take operations while they fit, and go back where they do not.

        Reads and failed compare-and-sets that fit are taken first, and for good: they change nothing wherever they are,
        so that an order without them at this place could have them here as well. Else many reads that overlap for
        long would be tried in all their orders.
        """
        operations, head = self._operations, _linked(self._operations)
        order: list[tuple[_Event, Value, int, bool]] = []
        seen: set[tuple[int, Value]] = set()
        longest: list[int] = []
        event, is_free = self._first(head)
        for _ in range(MOST_STEPS):
            if event is None:
                return Verdict(True, [operations[each.number] for each, *_ in order])
            if event.match is not None:
                fits, following, taken = self._following(event.number)
                if fits and (taken, following) not in seen:
                    seen.add((taken, following))
                    order.append((event, self._state, self._taken, is_free))
                    self._state, self._taken = following, taken
                    _lift(event)
                    event, is_free = self._first(head)
                    continue
                if not is_free:
                    event = event.after
                    continue
            # A return whose call found no place: what was chosen last was wrong.
            if len(order) > len(longest):
                longest = [each.number for each, *_ in order]
            is_free = True
            while order and is_free:
                last, self._state, self._taken, is_free = order.pop()
                _put_back(last)
                event = last.after
            if is_free:
                break
        rest = [operation for number, operation in enumerate(operations) if number not in set(longest)]
        stuck = sorted((each for each in rest if each.is_known), key=lambda each: each.returned)
        return Verdict(False, [operations[number] for number in longest], stuck)
