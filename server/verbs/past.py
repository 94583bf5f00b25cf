"""The verbs that look at the past: `at`, `history`, `diff`.

One rule: they change nothing. They ask a server (-c), or read a vault themselves (--vault URL), and say the same.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Final

import click

from backup.flags import target_flags, target_of
from backup.progress import Bar, plural
from backup.selection import parse_name
from model.errors import BadSetting
from server.verbs.output import EXIT_CODES, Output, VaultFlags, WorkBar, key_of, now_ms, output_flags, vault_flags

DEFAULT_PORT: Final = 28016
SHOWN_BYTES: Final = 200  # of a document on one line
_AGO: Final = re.compile(r"-(\d+[smhdw])+\Z")

MOMENTS: Final = (
    'latest; index:N; 2026-03-01T12:00:00Z; "2026-03-01 12:00 Europe/Berlin"; -10m; before-drop:DB.TABLE; image:NAME.'
)


class MomentCommand(click.Command):
    """A command with a moment as an argument: `-10m` is one, and no flag."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, [f"now{arg}" if _AGO.match(arg) else arg for arg in args])


@click.command("at", cls=MomentCommand, epilog=EXIT_CODES)
@click.argument("moment")
@vault_flags
@click.option("--image", metavar="NAME", help="Begin with this image. [the newest that leads to the moment]")
@click.option("--driver-port", type=click.IntRange(0, 65535), default=DEFAULT_PORT, help=f"[{DEFAULT_PORT}]")
@click.option("--bind", metavar="ADDRESS", default="127.0.0.1", help="Listen here; `all` is every network. [127.0.0.1]")
@click.option("--temp-dir", type=click.Path(exists=True, file_okay=False, path_type=Path), help="For the copy.")
@click.option("--dry-run", is_flag=True, help="Only say what would be read.")
@output_flags
def at(
    moment: str,
    image: str | None,
    driver_port: int,
    bind: str,
    temp_dir: Path | None,
    dry_run: bool,
    **flags: Any,
) -> None:
    """Serve a moment of the past, read-only, over the driver protocol, until stopped.

    Users and passwords are those of that moment. The copy is thrown away at the end.
    """
    from backup.restore import plan_from
    from backup.timeline import format_time, parse_moment
    from server.past import Place, serve_past

    output, vault_given = Output(flags), VaultFlags.take(flags)
    with output.errors():
        wanted = parse_moment(moment, now_ms())
        vault = vault_given.open()
        planned = plan_from(vault, wanted, image)
        if dry_run:
            output.done(planned.describe(), planned.as_plain())
        for line in planned.describe():
            output.say(line)

        def ready(made: Any) -> None:
            when = format_time(made.rebuilt.time_ms)
            bar.__exit__(None, None, None)
            output.say(f"{plural(made.rebuilt.rows, 'row', 'rows')} as of log index {made.rebuilt.log_index} ({when})")

        bar = Bar("loading rows", None, output.shows_bar)
        with bar:
            place = Place(driver_port, "0.0.0.0" if bind == "all" else bind, temp_dir)
            code = serve_past(vault, planned.plan, place, WorkBar(bar), now_ms, ready)
        raise SystemExit(code)


@click.command("history", epilog=EXIT_CODES)
@click.argument("table", metavar="DB.TABLE")
@click.argument("key")
@vault_flags
@click.option(
    "--data-dir", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Also this server's log."
)
@target_flags
def history(table: str, key: str, data_dir: Path | None, **flags: Any) -> None:
    """List the versions of a document, with time and log index.

    KEY is JSON where it can be read as such, else text: 42 is a number, '"42"' and abc are text.
    """
    output, vault_given = Output(flags), VaultFlags.take(flags)
    with output.errors():
        name = parse_name(table)
        if name.table is None:
            raise BadSetting(f"{table} is not of the form DB.TABLE.")
        datum = key_of(key)
        target = target_of(flags)
        if vault_given.vault is None and data_dir is None:
            found = _ask(target, "history", [name.database, name.table, datum])
        else:
            found = _history_here(vault_given, data_dir, table, datum)
        output.done(_history_lines(found), found)


def _ask(target: Any, table: str, key: Any) -> Any:
    """A row of one of the server's tables about the past."""
    from backup.driver_link import RAW_FORMATS, Session, r

    session = Session(target)
    try:
        query = r.db("rethinkdb").table(table).get(r.expr(key)).without("id")
        return session.run(f"read {table}", query, **RAW_FORMATS)
    finally:
        session.close()


def _history_here(vault_given: VaultFlags, data_dir: Path | None, table: str, key: Any) -> Any:
    from backup.restore_jobs import tell_versions

    job: dict[str, Any] = {"table": table, "key": key}
    if vault_given.vault is not None:
        vault_given.open()
        job["vault"] = vault_given.access().as_plain()
    if data_dir is not None:
        job["log"] = {"folder": str(data_dir / "log"), "last_index": 1 << 62, "databases": [], "now_ms": now_ms()}
    return tell_versions(job, _Quiet())  # type: ignore[arg-type]


class _Quiet:
    """In place of the line to a server: nobody is told."""

    def tell(self, event: str, **fields: Any) -> None:
        """Nobody listens."""

    def progress(self, what: str, rows: int, size: int) -> None:
        """Nobody listens."""


def _history_lines(found: Any) -> list[str]:
    if found["known_since_log_index"] is None:
        return ["Nothing is known of the past there."]
    lines = [f"known since log index {found['known_since_log_index']} ({found['known_since'] or 'time not known'})"]
    for version in found["versions"]:
        row = "" if version["row"] is None else json.dumps(version["row"], ensure_ascii=False)
        shown = row if len(row) <= SHOWN_BYTES else row[:SHOWN_BYTES] + "..."
        gap = "  (the log before is not known)" if version["gap"] else ""
        renamed = "" if version["table"] == found["table"] else f"  in {version['table']}"
        lines.append(f"{version['log_index']:>10}  {version['time']}  {version['change']:<13} {shown}{renamed}{gap}")
    count = len(found["versions"])
    return [*lines, plural(count, "version", "versions")]


@click.command("diff", epilog=EXIT_CODES)
@click.argument("names", nargs=-1, metavar="[DB[.TABLE]]...")
@click.option("--from", "first", required=True, metavar="MOMENT", help=MOMENTS)
@click.option("--to", "second", required=True, metavar="MOMENT", help="As --from.")
@click.option("--keys", "most_keys", type=click.IntRange(0), default=20, help="Keys to list per table. [20]")
@vault_flags
@target_flags
def diff(names: tuple[str, ...], first: str, second: str, most_keys: int, **flags: Any) -> None:
    """Count and list what changed between two moments, per table."""
    output, vault_given = Output(flags), VaultFlags.take(flags)
    with output.errors():
        for name in names:
            parse_name(name)
        target = target_of(flags)
        if vault_given.vault is None:
            found = _ask(target, "differences", [first, second, list(names)])
            for table in found["tables"]:
                table["more_keys"] += max(len(table["keys"]) - most_keys, 0)
                del table["keys"][most_keys:]
        else:
            from backup.restore_jobs import compare_moments

            vault_given.open()
            job = {"vault": vault_given.access().as_plain(), "from": first, "to": second, "names": list(names)}
            found = compare_moments({**job, "most_keys": most_keys, "now_ms": now_ms()}, _Quiet())  # type: ignore[arg-type]
        output.done(_diff_lines(found), found)


def _diff_lines(found: Any) -> list[str]:
    ends = [f"log index {found[end]['log_index']} ({found[end]['time']})" for end in ("from", "to")]
    lines = [f"from {ends[0]} to {ends[1]}"]
    for table in found["tables"]:
        name = table["after"] or table["before"]
        notes = ""
        if table["before"] is None:
            notes = ", created"
        elif table["after"] is None:
            notes = ", dropped"
        elif table["before"] != table["after"]:
            notes = f", was {table['before']}"
        counts = f"{table['inserted']} inserted, {table['deleted']} deleted, {table['changed']} changed"
        lines.append(f"{name}: {counts}{notes}")
        lines += [f"    {key['change']:<8} {json.dumps(key['key'], ensure_ascii=False)}" for key in table["keys"]]
        if table["more_keys"]:
            lines.append(f"    and {table['more_keys']} more")
    return lines if found["tables"] else [*lines, "no difference"]
