"""The published data-driven cases of a Raft library, run against our core.

    python -m tests.consensus.vectors FOLDER

runs every `*.txt` in FOLDER's quorum/, confchange/ and interaction/, counts one case per directive,
shows what differs, and ends with `N passed, N failed`. Messages and states are compared line by
line; free text that a library logs on the way (lines that start with a level) is not.
"""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from consensus import confchange, quorum
from consensus.quorum import INFINITE
from consensus.tracker import Tracker
from tests.consensus.describe import changes_of, progress_text
from tests.consensus.group import Group
from tests.consensus.transcript import Directive, parse

Runner = Callable[[Directive], str]
FREE_TEXT = re.compile(r"\s*(DEBUG|INFO|WARN|ERROR|FATAL)( |$)")


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one directive went."""

    file: Path
    directive: Directive
    output: str

    @property
    def wanted(self) -> list[str]:
        """The lines that count of what was expected."""
        return _lines(self.directive.expected)

    @property
    def passed(self) -> bool:
        """Whether the lines that count are the same."""
        return _lines(self.output) == self.wanted

    def difference(self) -> str:
        """What differs, for people."""
        lines = difflib.unified_diff(self.wanted, _lines(self.output), "expected", "given", lineterm="")
        return f"{self.file}:{self.directive.line}: {self.directive.command}\n" + "\n".join(lines)


def _lines(text: str) -> list[str]:
    kept = [line.rstrip() for line in text.splitlines() if line.strip() and not FREE_TEXT.match(line)]
    return [] if kept == ["ok"] else kept


def run_folder(folder: Path) -> Iterator[Outcome]:
    """Every case of a folder."""
    makers: dict[str, Callable[[], Runner]] = {
        "quorum": lambda: quorum_case,
        "confchange": conf_change_cases,
        "interaction": lambda: Group().run,
    }
    for name, make in makers.items():
        for file in sorted((folder / name).glob("*.txt")):
            yield from run_file(file, make())


def run_file(file: Path, runner: Runner) -> Iterator[Outcome]:
    """Every directive of a file; a crash of ours fails the directive."""
    for directive in parse(file.read_text()):
        try:
            output = runner(directive)
        except Exception as error:
            output = f"{type(error).__name__}: {error}"
        yield Outcome(file, directive, output)


# -- quorum


def quorum_case(directive: Directive) -> str:
    """`committed cfg=(1,2) idx=(5,_)` or `vote cfg=(1,2) votes=(y,_)`, with `cfgj` for a joint configuration."""
    incoming = [int(member) for member in directive.options.get("cfg", [])]
    joint = directive.options.get("cfgj")
    outgoing = [int(member) for member in joint or [] if member != "zero"]
    members = list(dict.fromkeys(incoming + outgoing))
    given = directive.options.get("votes" if directive.command == "vote" else "idx", [])
    if len(given) != len(members):
        shown = " ".join(f"{member}:{{}}" for member in sorted(members))
        return f"error: mismatched input (explicit or _) for voters map[{shown}]: [{' '.join(given).replace('_', '0')}]"
    known = {member: value for member, value in zip(members, given, strict=True) if value != "_"}
    first, second = frozenset(incoming), frozenset(outgoing)
    if directive.command == "vote":
        votes = {member: value == "y" for member, value in known.items()}
        if joint is None:
            return quorum.vote_result(first, votes).value
        assert quorum.joint_vote_result(first, second, votes) is quorum.joint_vote_result(second, first, votes)
        return quorum.joint_vote_result(first, second, votes).value
    acked = {member: int(value) for member, value in known.items()}
    if joint is None:
        index = quorum.committed_index(first, acked)
        assert (
            index == quorum.joint_committed_index(first, (), acked) == quorum.joint_committed_index(first, first, acked)
        )
    else:
        index = quorum.joint_committed_index(first, second, acked)
        assert index == quorum.joint_committed_index(second, first, acked)
    return _bars(members, acked) + ("∞" if index == INFINITE else str(index))


def _bars(members: list[int], acked: Mapping[int, int]) -> str:
    """Each member's index as a bar: the longer, the more members are behind it."""
    if not members:
        return "<empty majority quorum>"
    width = len(members)
    ranked = sorted(acked.get(member, 0) for member in members)
    text = " " * width + "    idx\n"
    for member in sorted(members):
        index = acked.get(member, 0)
        bar = ranked.index(index)
        drawn = "x" * bar + ">" + " " * (width - bar) if member in acked else "?" + " " * width
        text += f"{drawn} {index:5d}    (id={member:x})\n"
    return text


# -- configuration changes


def conf_change_cases() -> Runner:
    """`simple`, `enter-joint [autoleave=true]`, `leave-joint`, each on what the ones before left."""
    tracker, last_index = Tracker(10), -1

    def run(directive: Directive) -> str:
        nonlocal tracker, last_index
        last_index += 1
        try:
            changes = changes_of(directive.input)
            if directive.command == "simple":
                changed = confchange.simple(tracker, last_index, changes)
            elif directive.command == "enter-joint":
                changed = confchange.enter_joint(tracker, last_index, changes, directive.flag("autoleave"))
            elif directive.command == "leave-joint":
                if changes:
                    return "this command takes no input"
                changed = confchange.leave_joint(tracker, last_index)
            else:
                return "unknown command"
        except confchange.BadConfChange as error:
            return str(error)
        tracker = tracker.switched(*changed)
        return f"{tracker.membership}\n{progress_text(tracker.progress)}"

    return run


def main(arguments: list[str]) -> int:
    """Run a folder; the exit status says whether all cases passed."""
    if len(arguments) != 1 or not Path(arguments[0]).is_dir():
        sys.stderr.write("usage: python -m tests.consensus.vectors FOLDER\n")
        return 2
    outcomes = list(run_folder(Path(arguments[0])))
    failed = [outcome for outcome in outcomes if not outcome.passed]
    for outcome in failed:
        sys.stdout.write(outcome.difference() + "\n\n")
    sys.stdout.write(f"{len(outcomes) - len(failed)} passed, {len(failed)} failed\n")
    return 1 if failed or not outcomes else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
