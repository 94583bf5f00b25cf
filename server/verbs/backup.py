"""The verbs on backups: `backup`, `backups`, `verify`, `drill`, `expire`, `hold`, `undrop`.

One rule: with -c the server does it, as a row of one of its tables; with --vault URL it is done here, on the vault.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import click

from backup.flags import exported_flag, target_flags, target_of
from backup.progress import Bar, plural
from backup.selection import parse_name
from model.errors import BadSetting, ToolFailed
from server.verbs.catalog import catalog_lines, catalog_of, size, unreachable
from server.verbs.jobs import Jobs
from server.verbs.output import (
    EXIT_CODES,
    FAILED,
    Output,
    VaultFlags,
    WorkBar,
    now_ms,
    output_flags,
    split_names,
    vault_flags,
)

DEPTHS: Final = ("manifest", "files", "rows")


def named_vaults(given: VaultFlags) -> list[str]:
    """The vaults that a row of the server's tables is to name. Raises BadSetting for a URL."""
    if given.is_url:
        raise BadSetting("--vault has to be the name of one of the server's vaults here.")
    return [] if given.vault is None else [given.vault]


@click.command("backup", epilog=EXIT_CODES)
@exported_flag
@click.option("--name", help="What it is called in `backups` and `backup_log`.")
@click.option("--max-rate", type=click.IntRange(1), metavar="BYTES", help="Bytes per second at most.")
@click.option("--hold", "is_held", is_flag=True, help="It never expires.")
@click.option("--vault", "vaults", multiple=True, metavar="NAME", help="Only into this vault; may be repeated. [all]")
@target_flags
def backup(
    wanted: tuple[str, ...],
    name: str | None,
    max_rate: int | None,
    is_held: bool,
    vaults: tuple[str, ...],
    **flags: Any,
) -> None:
    """Take a backup of the server, of databases or of tables, and wait until it was read back."""
    output = Output(flags)
    with output.errors(), Jobs(target_of(flags)) as jobs:
        if any("/" in vault for vault in vaults):
            raise BadSetting("--vault takes names of the server's vaults here; `rewinddb vault add` adds one.")
        asked: dict[str, Any] = {**split_names(wanted), "vaults": list(vaults), "hold": is_held}
        asked |= {"name": name} if name else {}
        asked |= {"max_bytes_per_s": max_rate} if max_rate else {}
        row = jobs.do("backups", asked, "backup", output.shows_bar)
        rate = f"{row['rows'] / max(row['seconds'], 0.001):,.0f} rows/s"
        lines = [
            f"{plural(row['rows'], 'row', 'rows')}, {size(row['bytes'])}, as of log index {row['log_index']}",
            *([f"taken by {row['server']}"] if row.get("server") else []),
            *(f"image {i['image']} in vault {i['vault']} ({i['url']}), {size(i['bytes'])}" for i in row["images"]),
            f"{row['seconds']:.2f} seconds, {rate}",
            "backup successful",
        ]
        for warning in row["warnings"]:
            output.warn(warning)
        output.done(lines, row)


@click.group("backups", invoke_without_command=True, epilog=EXIT_CODES)
@vault_flags
@target_flags
def backups(**flags: Any) -> None:
    """List what vaults hold: images, log, moments that can be restored, proofs."""
    if click.get_current_context().invoked_subcommand is not None:
        return
    output, given = Output(flags), VaultFlags.take(flags)
    with output.errors():
        if given.is_url:
            from backup.inventory import inventory

            found = [catalog_of(inventory(given.open()), None, ())]
        else:
            with Jobs(target_of(flags)) as jobs:
                found = _catalog(jobs, given.vault)
        lines = [line for vault in found for line in [*catalog_lines(vault), ""]]
        output.done(lines[:-1] or ["The server has no vaults; add one with `rewinddb vault add`."], {"vaults": found})


@backups.command("export", epilog=EXIT_CODES)
@click.option("--to", "moment", default="latest", metavar="MOMENT", help="As of `restore --to`. [latest]")
@click.option("--image", metavar="NAME", help="Begin with this image. [the newest that leads to the moment]")
@click.option(
    "-f", "--file", metavar="FILE", help="Archive to write; - is standard output. [rethinkdb_dump_DATE.tar.gz]"
)
@exported_flag
@click.option("--overwrite-file", is_flag=True, help="Overwrite the archive if it exists.")
@click.option("--compress", type=click.Choice(["gz", "zst", "none"]), help="Codec. [by the file's name, else gz]")
@click.option("--level", type=click.IntRange(0, 22), help="Compression level of the codec.")
@click.option("--threads", type=click.IntRange(1), default=os.cpu_count() or 1, help="Threads that compress.")
@click.option("--temp-dir", type=click.Path(exists=True, file_okay=False, path_type=Path), help="For the rows.")
@vault_flags
@output_flags
def export_archive(
    moment: str,
    image: str | None,
    file: str | None,
    wanted: tuple[str, ...],
    overwrite_file: bool,
    compress: str | None,
    level: int | None,
    threads: int,
    temp_dir: Path | None,
    **flags: Any,
) -> None:
    """Turn a moment of a vault (--vault URL) into an archive that RethinkDB's tools take.

    Everything comes with users and permissions, which `rewinddb restore FILE` takes and RethinkDB's passes over.
    """
    from backup.archives.codec import codec_for_file, codec_named
    from backup.archives.dump import default_top
    from backup.restore import plan_from
    from backup.timeline import parse_moment
    from server.archive_export import ExportOptions, export

    output, given = Output(flags, to_stderr=file == "-"), VaultFlags.take(flags)
    with output.errors():
        names = tuple(parse_name(name) for name in wanted)
        codec = compress or codec_for_file(file or "")
        path = None if file == "-" else Path(file or f"{default_top()}.tar{codec_named(codec).suffix}").absolute()
        if path is not None and path.exists() and not overwrite_file:
            raise BadSetting(f"Output file already exists: {path}")
        vault = given.open()
        planned = plan_from(vault, parse_moment(moment, now_ms()), image, wanted)
        options = ExportOptions(path, names, codec, level, threads, temp_dir)
        with Bar("loading rows", None, output.shows_bar) as bar:
            summary = export(vault, planned, options, WorkBar(bar), bar)
        done = f"Done ({summary.seconds:.2f} seconds): {path or '<stdout>'}"
        document = {"file": None if path is None else str(path), **asdict(summary), "plan": planned.as_plain()}
        output.done([f"    {summary.line()}", done], document)


def _catalog(jobs: Jobs, wanted: str | None) -> list[dict[str, Any]]:
    if wanted is not None:
        jobs.named("vaults", wanted)
    tasks = jobs.rows("backup_tasks")
    found = []
    for vault in jobs.rows("vaults"):
        if wanted in (None, vault["name"]):
            try:
                contents = jobs.row("vault_contents", vault["name"])
                found.append(catalog_of(contents or {}, vault, tasks))
            except ToolFailed as error:
                found.append(unreachable(vault, error.message))
    return found


@click.command("verify", epilog=f"{EXIT_CODES} Problems that were found are a failure.")
@click.option("--depth", type=click.Choice(DEPTHS), default="files", help="How deep to look. [files]")
@click.option("--part", metavar="K/N", help="Only the k-th of n parts of the objects.")
@vault_flags
@target_flags
def verify(depth: str, part: str | None, **flags: Any) -> None:
    """Check that what vaults hold is whole.

    manifest: manifests and sizes. files: and all hashes. rows: and images are rebuilt and compared.
    """
    output, given = Output(flags), VaultFlags.take(flags)
    with output.errors():
        parts = _part(part)
        asked = {"task": "verify", "depth": depth, "part": parts}
        if not given.is_url:
            return _task(output, given, asked, flags, "verify", _verified)
        from backup.verify import verify as look

        vault = given.open()
        with (
            tempfile.TemporaryDirectory(prefix="rewinddb-verify-") as scratch,
            Bar("verify", None, output.shows_bar) as bar,
        ):
            chosen = None if parts is None else (parts[0], parts[1])
            report = look(vault, depth, WorkBar(bar), Path(scratch) / "rows", chosen).as_plain()
        if report["problems"]:
            for problem in report["problems"]:
                output.warn(problem)
            output.done(["verify failed"], report, FAILED)
        output.done([*_verified(vault.url, report), "verify successful"], report)


def _part(text: str | None) -> list[int] | None:
    if text is None:
        return None
    k, _, n = text.partition("/")
    if not k.isdigit() or not n.isdigit() or not 1 <= int(k) <= int(n):
        raise BadSetting(f"--part takes K/N with 1 <= K <= N, not {text}.")
    return [int(k), int(n)]


def _verified(name: str, result: Any) -> list[str]:
    looked = f"{plural(result['images'], 'image', 'images')}, {result['slices']} slices, {result['objects']} objects"
    lines = [f"{name}: {looked}, {size(result['bytes'])}, {result['rows']} rows compared, no problems"]
    return [*lines, *(f"    note: {note}" for note in result["notes"])]


@click.command("drill", epilog=EXIT_CODES)
@vault_flags
@target_flags
def drill(**flags: Any) -> None:
    """Restore the newest moment into a scratch folder, compare, and say how long it took."""
    output, given = Output(flags), VaultFlags.take(flags)
    with output.errors():
        if not given.is_url:
            return _task(output, given, {"task": "drill"}, flags, "drill", _drilled)
        from backup.drill import drill as practise

        vault = given.open()
        with (
            tempfile.TemporaryDirectory(prefix="rewinddb-drill-") as scratch,
            Bar("drill", None, output.shows_bar) as bar,
        ):
            result = practise(vault, Path(scratch) / "rows", WorkBar(bar))
        if result["problems"]:
            for problem in result["problems"]:
                output.warn(problem)
            output.done(["drill failed"], result, FAILED)
        output.done([*_drilled(vault.url, result), "drill successful"], result)


def _drilled(name: str, result: Any) -> list[str]:
    seconds = result["restore_seconds"]
    rate = f"{result['rows'] / max(seconds, 0.001):,.0f} rows/s"
    return [
        f"{name}: {result['rows']} rows as of log index {result['log_index']} in {seconds} s ({rate}), as they were"
    ]


@click.command("expire", epilog=EXIT_CODES)
@click.option("--image", "images", multiple=True, metavar="NAME", help="Delete this image, if no promise covers it.")
@click.option("--keep-images", type=click.IntRange(1), help="With a URL: the newest so many stay.")
@click.option("--keep-days", type=float, help="With a URL: those not older stay.")
@click.option("--window-days", type=float, help="With a URL: every moment of so many days stays restorable.")
@click.option("--minimum-images", type=click.IntRange(1), help="With a URL: so many stay whatever else is said.")
@click.option("--dry-run", is_flag=True, help="Only say what would be deleted.")
@vault_flags
@target_flags
def expire(images: tuple[str, ...], dry_run: bool, **flags: Any) -> None:
    """Delete what the vaults' retention lets go of; never what it promises."""
    policy_names = ("keep_images", "keep_days", "window_days", "minimum_images")
    policy = {name: value for name in policy_names if (value := flags.pop(name)) is not None}
    output, given = Output(flags), VaultFlags.take(flags)
    with output.errors():
        if not given.is_url:
            if policy:
                raise BadSetting("A server's vault has its retention in its row: see `rewinddb vault add --help`.")
            asked = {"task": "delete", "images": list(images)} if images else {"task": "expire"}
            return _task(output, given, {**asked, "dry_run": dry_run}, flags, "expire", _expired)
        from backup.jobs import delete
        from backup.jobs import expire as clean

        given.open()
        job = {"vault": given.access().as_plain(), "retention": policy, "now_ms": now_ms(), "dry_run": dry_run}
        result = delete({**job, "images": list(images)}, None) if images else clean(job, None)  # type: ignore[arg-type]
        output.done([*_expired(str(given.vault), result), "expire successful"], result)


def _expired(name: str, result: Any) -> list[str]:
    verb = "would delete" if result["dry_run"] else "deleted"
    lines = [f"{name}: {verb} {plural(len(result['images']), 'image', 'images')} and {result['slices']} slices"]
    lines += [f"    {verb} image {image}" for image in result["images"]]
    lines += [f"    {verb} the rest of an unfinished backup: {left}" for left in result["leftovers"]]
    return [*lines, *(f"    kept image {image}: {why}" for image, why in result["kept"].items())]


@click.command("hold", epilog=EXIT_CODES)
@click.argument("image")
@click.option("--release", "is_over", is_flag=True, help="End the hold.")
@vault_flags
@target_flags
def hold(image: str, is_over: bool, **flags: Any) -> None:
    """Keep an image whatever the retention says."""
    output, given = Output(flags), VaultFlags.take(flags)
    task = "release" if is_over else "hold"
    with output.errors():
        if not given.is_url:
            return _task(output, given, {"task": task, "images": [image]}, flags, task, _held)
        from backup import holds

        (holds.release if is_over else holds.hold)(given.open(), image)
        result = {"images": [image], "held": not is_over}
        output.done([*_held(str(given.vault), result), f"{task} successful"], result)


def _held(name: str, result: Any) -> list[str]:
    what = "is held" if result["held"] else "is no longer held"
    return [f"{name}: {image} {what}" for image in result["images"]]


@click.command("undrop", epilog=EXIT_CODES)
@click.argument("name", metavar="DB[.TABLE]")
@click.option("--as", "renames", multiple=True, metavar="FROM=TO", help="Under another name: db=db or db.t=db.t.")
@click.option("--replace", is_flag=True, help="Put it in the place of what bears its name now.")
@click.option("--dry-run", is_flag=True, help="Only say what would be brought back.")
@vault_flags
@target_flags
def undrop(name: str, renames: tuple[str, ...], replace: bool, dry_run: bool, **flags: Any) -> None:
    """Bring back a dropped table or database, as it was just before the drop."""
    from server.verbs.restore import renames_of, restore_in_server

    output, given = Output(flags), VaultFlags.take(flags)
    with output.errors():
        parse_name(name)
        asked: dict[str, Any] = {"undrop": name, "as": renames_of(renames), "replace": replace, "dry_run": dry_run}
        restore_in_server(output, given, asked, target_of(flags))


# -- what they have in common


def _task(
    output: Output,
    given: VaultFlags,
    asked: dict[str, Any],
    flags: dict[str, Any],
    title: str,
    lines_of: Callable[[str, Any], list[str]],
) -> None:
    """A row of `backup_tasks`, followed to its end."""
    with Jobs(target_of(flags)) as jobs:
        row = jobs.do("backup_tasks", {**asked, "vaults": named_vaults(given)}, title, output.shows_bar)
    lines = [line for vault, result in (row["result"] or {}).items() for line in lines_of(vault, result)]
    output.done([*lines, f"{title} successful"], row)
