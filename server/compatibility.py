"""Prints docs/compatibility.md from the table of terms, so that it cannot say what the code does not do.

python -m server.compatibility > docs/compatibility.md
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import click

from proxy.reql import terms as _terms  # noqa: F401  (fills the table
from proxy.reql.ids import Term
from proxy.reql.registry import ALWAYS, TERMS, TermSpec
from server.system import Site, SystemTables
from server.vitals import NAMES as VITAL_TABLES

NOT_TERMS: Final = frozenset({Term.DATUM})  # how literals are written, not something a driver calls

HEAD: Final = """\
# Compatibility

Printed from the table of terms by `make docs`; do not edit.

RewindDB speaks RethinkDB's driver protocol (handshakes V1_0, V0_4 and V0_3 with JSON) and tells drivers that it is
RethinkDB 2.4.4. {done} of {all} terms work. A query with one of the others gets an error that names the term.

*Deterministic* terms may stand in index functions and in `update` without `non_atomic`.
"""


def lines() -> Iterator[str]:
    """The page, line by line."""
    known = [term for term in Term if term not in NOT_TERMS]
    done = [TERMS[term] for term in known if int(term) in TERMS]
    yield from HEAD.format(done=len(done), all=len(known)).splitlines()
    missing = [term.name.lower() for term in known if int(term) not in TERMS]
    if missing:
        yield ""
        yield "## Not there yet"
        yield ""
        yield ", ".join(f"`{name}`" for name in sorted(missing))
    yield ""
    yield "## Terms"
    yield ""
    yield "| term | number | arguments | options | deterministic |"
    yield "| --- | --- | --- | --- | --- |"
    yield from sorted(map(_row, done))
    yield ""
    yield "## System tables"
    yield ""
    yield "In the database `rethinkdb`: " + ", ".join(f"`{name}`" for name in sorted(listed_system_tables())) + "."


def listed_system_tables() -> list[str]:
    """The tables of database `rethinkdb` that `table_list` shows."""
    return [*SystemTables(Site("", "", "", "", 0, (), 0.0, 0.0)).names(), *VITAL_TABLES]


def _row(spec: TermSpec) -> str:
    options = ", ".join(f"`{name}`" for name in sorted(spec.optargs))
    deterministic = "yes" if spec.determinism == ALWAYS else ""
    return f"| `{spec.id.name.lower()}` | {int(spec.id)} | {_arguments(spec)} | {options} | {deterministic} |"


def _arguments(spec: TermSpec) -> str:
    if spec.high is None:
        return f"{spec.low} or more"
    return str(spec.low) if spec.low == spec.high else f"{spec.low} to {spec.high}"


if __name__ == "__main__":
    for line in lines():
        click.echo(line)
