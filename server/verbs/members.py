"""`rewinddb status` and `rewinddb member ...`: the cluster from the command line.

One rule: they talk to any server over the driver port, as anybody could through the tables `rethinkdb.members` and
`rethinkdb.invitations`; what changes something is carried out by the leader before the command ends.
"""

from __future__ import annotations

import json
import secrets
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import click

from backup.flags import target_flags, target_of
from model.errors import ToolFailed
from server.cluster.health import DISK_LOW, UNREACHABLE

Row = dict[str, Any]
Command = Callable[..., Any]

PROBLEMS: Final = (UNREACHABLE, DISK_LOW)
LEAD_WAIT_S: Final = 10.0
LOOK_S: Final = 0.1


class Asking:
    """A connection for one command. Raises ToolFailed."""

    def __init__(self, flags: dict[str, Any]) -> None:
        from backup.driver_link import Session

        self.quiet = flags.pop("quiet")
        self.as_json = flags.pop("as_json")
        flags.pop("debug")
        self._session = Session(target_of(flags))

    @property
    def server_id(self) -> str:
        """Of the server that is asked."""
        return str(self._session.connection.server()["id"])

    def rows(self, table: str, read_mode: str = "single") -> list[Row]:
        """All rows of one of our system tables, as this read mode allows."""
        from backup.driver_link import r

        query = r.db("rethinkdb").table(table, read_mode=read_mode).order_by("id")
        found: list[Row] = list(self._session.run(f"read the table {table}", query, time_format="raw"))
        return found

    def write(self, what: str, query: Any) -> Row:
        """A write that is done once; raises ToolFailed with the server's reason."""
        from rethinkdb.errors import ReqlError

        try:
            answer: Row = query.run(self._session.connection, time_format="raw")
        except ReqlError as error:
            raise ToolFailed(f"{what}: {error.message}") from error
        if answer.get("errors"):
            raise ToolFailed(f"{what}: {answer['first_error']}")
        return answer

    def say(self, value: Any, *lines: str) -> None:
        """The outcome: a JSON document, or lines for people."""
        if self.as_json:
            click.echo(json.dumps(value, indent=2))
        elif not self.quiet:
            for line in lines:
                click.echo(line)


@click.command()
@target_flags
def status(**flags: Any) -> None:
    """Show the cluster: members, roles, log positions, lag, health; exit code 1 if something is wrong."""
    asking = Asking(flags)
    local = asking.rows("members", "outdated")
    has_leader = any(row["is_leader"] for row in local)
    rows = asking.rows("members") if has_leader else local
    asked = next((row for row in local if row["server_id"] == asking.server_id), None)
    problems = list(_problems(rows, has_leader, asked))
    asking.say({"members": rows, "problems": problems, "has_leader": has_leader}, *_table(rows), *problems)
    sys.exit(1 if problems else 0)


def _problems(rows: Sequence[Row], has_leader: bool, asked: Row | None) -> Iterator[str]:
    """What is wrong, in sentences. asked: the row of the server that was asked."""
    if not has_leader:
        yield "No member leads: a majority of the voters cannot be reached, or an election is under way."
        if asked is not None and "leader_heard_ms_ago" in asked:
            age = asked["leader_heard_ms_ago"] / 1000
            yield f"Member {asked['id']} ({asked['name']}) heard of a leader {age:.1f} s ago: so old are its answers."
    for row in rows:
        if row["health"] in PROBLEMS:
            yield f"Member {row['id']} ({row['name']}): {row['health']}."
    voters = [row for row in rows if row["role"] == "voter"]
    alive = sum(row["health"] != UNREACHABLE for row in voters)
    if voters and has_leader and len(voters) > 1 and alive <= len(voters) // 2 + 1 and alive < len(voters):
        yield f"{alive} of {len(voters)} voters are there: if one more is lost, nothing can be written."


COLUMNS: Final = ("ID", "NAME", "ADDRESS", "ROLE", "HEALTH", "LOG", "APPLIED", "LAG", "STALL", "FREE", "VERSION")


def _table(rows: Sequence[Row]) -> Iterator[str]:
    lines = [COLUMNS, *map(_cells, rows)]
    widths = [max(len(line[at]) for line in lines) for at in range(len(COLUMNS))]
    for line in lines:
        yield "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()


def _cells(row: Row) -> tuple[str, ...]:
    log: Mapping[str, Any] = row["log"] or {}
    role = "leader" if row["is_leader"] else row["role"]
    if row["role"] == "learner" and row["wanted"] == "voter":
        role = "learner, to vote"
    health = row["health"]
    if "snapshot" in row:
        sent, size = row["snapshot"]["sent_bytes"], row["snapshot"]["bytes"]
        health = f"snapshot {sent * 100 // max(1, size)} %"
    return (
        str(row["id"]),
        row["name"],
        row["address"],
        role,
        health,
        str(log.get("last", "-")),
        str(log.get("applied", "-")),
        "-" if row["lag_entries"] is None else str(row["lag_entries"]),
        f"{row['longest_stall_ms']:.0f} ms" if "longest_stall_ms" in row else "-",
        f"{row['free_disk_bytes'] / (1 << 30):.1f} GiB" if "free_disk_bytes" in row else "-",
        row["version"],
    )


@click.group()
def member() -> None:
    """Change who belongs to the cluster, while it runs."""


@member.command("list")
@target_flags
def list_(**flags: Any) -> None:
    """List the members."""
    asking = Asking(flags)
    rows = asking.rows("members")
    asking.say(rows, *_table(rows))


def invitation_flags(command: Command) -> Command:
    """What an invitation is for."""
    hours = click.option("--hours", type=click.FloatRange(0, min_open=True), default=24.0, help="How long. [24]")
    learner = click.option("--learner", is_flag=True, help="The new member only copies; it never votes by itself.")
    return hours(learner(command))


def _invite(**flags: Any) -> None:
    from backup.driver_link import r
    from server.cluster.joining import SECRET_BYTES, Invitation, encode_token, key_of

    hours, learner = flags.pop("hours"), flags.pop("learner")
    asking = Asking(flags)
    members = asking.rows("members")
    if not members:
        raise ToolFailed("The server has not told its address yet; try again in a moment.")
    secret, invitation_id = secrets.token_bytes(SECRET_BYTES), secrets.token_hex(8)
    row = {"id": invitation_id, "key": key_of(secret).hex(), "hours": hours, "learner": learner}
    asking.write("make an invitation", r.db("rethinkdb").table("invitations").insert(row))
    addresses = tuple(row["address"] for row in sorted(members, key=lambda row: not row["is_leader"]))
    token = encode_token(Invitation(addresses, members[0]["cluster_id"], invitation_id, secret))
    asking.say(
        {"token": token, "addresses": addresses, "hours": hours, "learner": learner},
        token,
    )
    if not asking.as_json and not asking.quiet:
        click.echo(
            f"\nOn the new server, within {hours:g} hour{'' if hours == 1 else 's'} "
            "(the token works once, and is a secret until then):\n\n"
            "    rewinddb serve --data-dir EMPTY_FOLDER --join TOKEN",
            err=True,
        )


@member.command()
@invitation_flags
@target_flags
def invite(**flags: Any) -> None:
    """Print a token with which one new server may join (`rewinddb serve --join TOKEN`)."""
    _invite(**flags)


@member.command()
@invitation_flags
@target_flags
def add(**flags: Any) -> None:
    """The same as `invite`: a server is added when it joins with the token."""
    _invite(**flags)


@member.command()
@click.argument("which", metavar="MEMBER")
@target_flags
def promote(which: str, **flags: Any) -> None:
    """Let a learner vote, as soon as it has caught up. MEMBER: an id or a name."""
    from backup.driver_link import r

    asking = Asking(flags)
    row = _find(asking.rows("members"), which)
    asking.write(
        f"promote member {row['id']}", r.db("rethinkdb").table("members").get(row["id"]).update({"wanted": "voter"})
    )
    asking.say({"promoted": row["id"]}, f"Member {row['id']} ({row['name']}) votes.")


@member.command()
@click.argument("which", metavar="MEMBER")
@target_flags
def remove(which: str, **flags: Any) -> None:
    """Remove a member, running or lost. It can only come back as a new one, with an empty folder."""
    from backup.driver_link import r

    asking = Asking(flags)
    row = _find(asking.rows("members"), which)
    asking.write(f"remove member {row['id']}", r.db("rethinkdb").table("members").get(row["id"]).delete())
    asking.say({"removed": row["id"]}, f"Member {row['id']} ({row['name']}) does not belong to the cluster any more.")


@member.command("transfer-leadership")
@click.argument("which", metavar="[MEMBER]", required=False)
@target_flags
def transfer_leadership(which: str | None, **flags: Any) -> None:
    """Have another member lead: MEMBER, or the voter whose log is longest."""
    from backup.driver_link import r

    asking = Asking(flags)
    rows = asking.rows("members")
    if which is not None:
        row = _find(rows, which)
    else:
        fit = [row for row in rows if row["role"] == "voter" and not row["is_leader"] and row["health"] == "ok"]
        if not fit:
            raise ToolFailed("No other member can lead now.")
        row = max(fit, key=lambda row: row.get("acknowledged", 0))
    asking.write(
        f"let member {row['id']} lead", r.db("rethinkdb").table("members").get(row["id"]).update({"is_leader": True})
    )
    until = time.monotonic() + LEAD_WAIT_S
    while not any(now["is_leader"] and now["id"] == row["id"] for now in asking.rows("members", "outdated")):
        if time.monotonic() >= until:
            raise ToolFailed(f"Member {row['id']} does not lead yet; `rewinddb status` shows who does.")
        time.sleep(LOOK_S)
    asking.say({"leads": row["id"]}, f"Member {row['id']} ({row['name']}) leads.")


def _find(rows: Sequence[Row], which: str) -> Row:
    """The member of that id or name. Raises ToolFailed."""
    found = [row for row in rows if str(row["id"]) == which or row["name"] == which]
    if len(found) != 1:
        known = ", ".join(f"{row['id']} ({row['name']})" for row in rows)
        raise ToolFailed(f"There is no member {which!r}; there are {known}.")
    return found[0]
