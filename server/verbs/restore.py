"""The verb `restore`: to a moment of a vault if there is a `--to`, else from an archive as RethinkDB's tools do.

One rule: what cannot be done is said before anything is written; `--dry-run` says it and stops.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import click

from backup.flags import imported_flag, target_flags, target_of
from backup.progress import Bar, plural
from backup.selection import Renames
from backup.timeline import format_time, parse_moment
from model.errors import BadSetting
from server.verbs.catalog import size
from server.verbs.jobs import Jobs
from server.verbs.output import EXIT_CODES, Output, VaultFlags, WorkBar, key_of, now_ms, split_names, vault_flags

AFFIXES: Final = ("db_prefix", "db_suffix", "table_prefix", "table_suffix")
_HELP_OF_MOMENTS: Final = (
    'latest; index:N; 2026-03-01T12:00:00Z; "2026-03-01 12:00 Europe/Berlin"; -10m; before-drop:DB.TABLE; image:NAME.'
)


@click.command("restore", epilog=EXIT_CODES)
@click.option("--to", "moment", required=True, metavar="MOMENT", help=_HELP_OF_MOMENTS)
@click.option("--data-dir", type=click.Path(path_type=Path), help="Make this the data folder of a new cluster.")
@vault_flags
@click.option("--image", metavar="NAME", help="Begin with this image. [the newest that leads to the moment]")
@imported_flag
@click.option("--as", "renames", multiple=True, metavar="FROM=TO", help="Under another name: db=db or db.t=db.t.")
@click.option("--db-prefix", default="", metavar="TEXT", help="Put before the names of databases.")
@click.option("--db-suffix", default="", metavar="TEXT", help="Put behind the names of databases.")
@click.option("--table-prefix", default="", metavar="TEXT", help="Put before the names of tables.")
@click.option("--table-suffix", default="", metavar="TEXT", help="Put behind the names of tables.")
@click.option("--key", "keys", multiple=True, metavar="KEY", help="Only this document of the one table; JSON or text.")
@click.option("--replace", is_flag=True, help="Put restored tables in the place of those that are there.")
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@target_flags
def restore_moment(
    moment: str,
    data_dir: Path | None,
    image: str | None,
    wanted: tuple[str, ...],
    renames: tuple[str, ...],
    keys: tuple[str, ...],
    replace: bool,
    dry_run: bool,
    **flags: Any,
) -> None:
    """Bring a moment back: into a new data folder, as a new cluster, or into a running server (-c).

    In a running server nothing is seen before all of it is there.
    """
    affixes = {name: flags.pop(name) for name in AFFIXES}
    output, vault_given = Output(flags), VaultFlags.take(flags)
    with output.errors():
        if data_dir is not None:
            if wanted or renames or keys or replace or any(affixes.values()):
                raise BadSetting("--data-dir restores everything; -i, --as, --key and --replace need a server (-c).")
            _into_folder(output, vault_given, target_of(flags), moment, data_dir, image, dry_run)
            return
        asked: dict[str, Any] = {
            "to": _absolute(moment),
            **split_names(wanted),
            "as": renames_of(renames),
            **affixes,
            "replace": replace,
            "dry_run": dry_run,
        }
        asked |= {"image": image} if image else {}
        asked |= {"keys": [key_of(key) for key in keys]} if keys else {}
        restore_in_server(output, vault_given, asked, target_of(flags))


def renames_of(texts: tuple[str, ...]) -> dict[str, str]:
    """--as FROM=TO as the field `as` of a row. Raises BadSetting."""
    Renames.parse(texts)
    return dict(text.split("=", 1) for text in texts)


def _absolute(words: str) -> str:
    """A moment that means the same on the server, whose clock may differ."""
    moment = parse_moment(words, now_ms())
    return moment.text if moment.time_ms is None else format_time(moment.time_ms)


def restore_in_server(output: Output, given: VaultFlags, asked: dict[str, Any], target: Any) -> None:
    """A row of `restores`, followed to its end. A vault given by URL is read by the server too."""
    with Jobs(target) as jobs:
        if given.vault is not None:
            asked = {**asked, "vault": given.vault if not given.is_url else given.access().as_plain()}
        row = jobs.do("restores", asked, "restore", output.shows_bar)
    if asked["dry_run"]:
        output.done([*row["lines"], *(f"would restore {name}" for name in row["restored"])], row)
    rate = f"{row['rows'] / max(row['seconds'], 0.001):,.0f} rows/s"
    lines = [
        f"{', '.join(row['restored'])} as of log index {row['log_index']} ({row['moment']})",
        *(f"there was no document {json.dumps(key)} at that moment" for key in row.get("not_there", ())),
        f"{plural(row['rows'], 'row', 'rows')}, {size(row['bytes'])} in {row['seconds']:.2f} seconds, {rate}",
        "restore successful",
    ]
    output.done(lines, row)


def _into_folder(
    output: Output,
    vault_given: VaultFlags,
    target: Any,
    words: str,
    data_dir: Path,
    image: str | None,
    dry_run: bool,
) -> None:
    from backup.restore import plan_from
    from server.new_cluster import check_empty, restore_folder

    moment = parse_moment(words, now_ms())
    check_empty(data_dir)
    if vault_given.vault is None:
        raise BadSetting("Say which vault: --vault URL, or --vault NAME for one of a running server's (-c).")
    vault = vault_given.open(lambda name: _row_of(target, name))
    planned = plan_from(vault, moment, image)
    if dry_run:
        output.done([*planned.describe(), f"into the new folder {data_dir}"], planned.as_plain())
    for line in planned.describe():
        output.say(line)
    with Bar("loading rows", None, output.shows_bar) as bar:
        made = restore_folder(vault, planned.plan, data_dir, WorkBar(bar), now_ms)
    rebuilt = made.rebuilt
    rate = rebuilt.rows / max(made.seconds, 0.001)
    lines = [
        f"{plural(rebuilt.rows, 'row', 'rows')} in {plural(made.tables, 'table', 'tables')} as of log index "
        f"{rebuilt.log_index} ({format_time(rebuilt.time_ms)}), {rebuilt.entries} entries of the log replayed",
        f"{made.seconds:.2f} seconds, {rate:,.0f} rows/s; new cluster {made.cluster_id}",
        f"Start it with: rewinddb serve --data-dir {data_dir}",
        "restore successful",
    ]
    document = {
        "state": "successful",
        "data_dir": str(made.data_dir),
        "cluster_id": made.cluster_id,
        "log_index": rebuilt.log_index,
        "time": format_time(rebuilt.time_ms),
        "tables": made.tables,
        "rows": rebuilt.rows,
        "log_entries": rebuilt.entries,
        "seconds": round(made.seconds, 3),
        "plan": planned.as_plain(),
    }
    output.done(lines, document)


def _row_of(target: Any, vault: str) -> dict[str, Any]:
    with Jobs(target) as jobs:
        return jobs.named("vaults", vault)


class RestoreVerb(click.Command):
    """Hands on to one of two commands; without any argument it tells of both."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        from backup.archives.commands import restore as restore_archive

        if any(arg in ("-h", "--help") for arg in args):
            return super().make_context(info_name, args, parent, **extra)
        given = {arg.partition("=")[0] for arg in args if arg.startswith("--")}
        archives = {name for parameter in restore_archive.params for name in parameter.opts}
        of_moments = {name for parameter in restore_moment.params for name in parameter.opts} - archives
        chosen = restore_moment if given & of_moments else restore_archive
        return chosen.make_context(info_name, args, parent, **extra)

    def get_help(self, ctx: click.Context) -> str:
        from backup.archives.commands import restore as restore_archive

        parts = []
        for command, usage in ((restore_moment, " --to MOMENT"), (restore_archive, "")):
            with click.Context(command, info_name=f"{ctx.info_name}{usage}", parent=ctx.parent) as sub:
                parts.append(command.get_help(sub))
        return "\n\n".join(parts)


restore = RestoreVerb("restore", help="Bring back a moment of a vault (--to), or load an archive (FILE).")
