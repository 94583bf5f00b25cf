"""The published cases of a Raft library, where they are at hand."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.consensus import vectors
from tests.consensus.group import Group
from tests.consensus.transcript import parse

FOLDERS = [
    folder
    for folder in [Path(os.environ.get("REWINDDB_RAFT_VECTORS", "../shared/raft-vectors"))]
    if (folder / "interaction").is_dir()
]


@pytest.mark.parametrize("folder", FOLDERS, ids=str)
def test_published_cases(folder: Path) -> None:
    failed = [outcome.difference() for outcome in vectors.run_folder(folder) if not outcome.passed]
    assert not failed, "\n\n".join(failed)


def test_a_difference_is_found_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "quorum").mkdir()
    (tmp_path / "quorum" / "votes.txt").write_text(
        "vote cfg=(1,2,3) votes=(y,y,_)\n----\nVoteWon\n\nvote cfg=(1,2,3) votes=(y,n,n)\n----\nVoteWon\n"
    )
    assert vectors.main([str(tmp_path)]) == 1
    output = capsys.readouterr().out
    assert output.endswith("1 passed, 1 failed\n")
    assert "votes.txt:5: vote" in output


def test_free_text_does_not_count(tmp_path: Path) -> None:
    (tmp_path / "confchange").mkdir()
    (tmp_path / "confchange" / "one.txt").write_text(
        "simple\nv1\n----\nINFO 1 switched to configuration voters=(1)\nvoters=(1)\n1: StateProbe match=0 next=1\n"
    )
    assert vectors.main([str(tmp_path)]) == 0


def test_a_folder_without_cases_fails(tmp_path: Path) -> None:
    assert vectors.main([str(tmp_path)]) == 1
    assert vectors.main([]) == 2


OWN = """
add-nodes 3 voters=(1,2,3) index=2
----
ok

campaign 1
----
ok

stabilize log-level=none
----
ok

raft-state
----
1: StateLeader (Voter) Term:1 Lead:1
2: StateFollower (Voter) Term:1 Lead:1
3: StateFollower (Voter) Term:1 Lead:1

propose 1 x
----
ok

process-ready 1
----
Ready MustSync=true:
Entries:
1/4 EntryNormal "x"
Messages:
1->2 MsgApp Term:1 Log:1/3 Commit:3 Entries:[1/4 EntryNormal "x"]
1->3 MsgApp Term:1 Log:1/3 Commit:3 Entries:[1/4 EntryNormal "x"]

deliver-msgs 2 drop=(3)
----
1->2 MsgApp Term:1 Log:1/3 Commit:3 Entries:[1/4 EntryNormal "x"]
dropped: 1->3 MsgApp Term:1 Log:1/3 Commit:3 Entries:[1/4 EntryNormal "x"]

stabilize log-level=none
----
ok

status 1
----
1: StateReplicate match=4 next=5
2: StateReplicate match=4 next=5
3: StateReplicate match=4 next=5

compact 1 3
----
1/4 EntryNormal "x"
"""


def test_a_transcript_of_our_own() -> None:
    run = Group().run
    for directive in parse(OWN):
        assert run(directive).strip() == directive.expected.strip(), f"line {directive.line}: {directive.command}"
