"""The verbs on places and times: `vault add|list|check|sync|key|pause|resume|remove`, `schedule add|list|...`.

One rule: a secret is never an argument. Flags name files and environment variables, on the server's machine.
"""

from __future__ import annotations

import base64
import os
import time
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import click

from backup.flags import exported_flag, target_flags, target_of
from backup.progress import plural
from model.errors import BadSetting, ToolFailed
from server.verbs.catalog import size
from server.verbs.jobs import POLL_S, Jobs
from server.verbs.output import EXIT_CODES, FAILED, Output, VaultFlags, output_flags, split_names, vault_flags

READY_WAIT_S: Final = 15.0
STARTING: Final = "starting"
OK: Final = "ok"
ACTIONS: Final = ("backup", "verify", "drill", "expire", "synthesise", "sync", "look")


@click.group("vault", epilog=EXIT_CODES)
def vault() -> None:
    """The places that keep backups and the log."""


@vault.command("add", epilog=EXIT_CODES)
@click.argument("name")
@click.argument("url")
@click.option("--key-file", default="", metavar="FILE", help="Encrypt with the newest key in this file.")
@click.option("--passphrase-file", default="", metavar="FILE", help="Encrypt with the passphrase in this file.")
@click.option("--options-file", default="", metavar="FILE", help="JSON with options of the file system, secrets too.")
@click.option("--env", "environment", multiple=True, metavar="OPTION=VARIABLE", help="Option from the environment.")
@click.option("--level", type=click.IntRange(0, 19), help="Compression level of zstd, 0 for none. [2]")
@click.option("--optional", "is_optional", is_flag=True, help="The log is not kept for it while it is away.")
@click.option("--keep-images", type=click.IntRange(1), help="Retention: the newest so many images stay.")
@click.option("--keep-days", type=float, help="Retention: images not older stay.")
@click.option("--window-days", type=float, help="Retention: every moment of so many days stays restorable.")
@click.option("--minimum-images", type=click.IntRange(1), help="Retention: so many stay whatever else is said.")
@target_flags
def add(
    name: str,
    url: str,
    key_file: str,
    passphrase_file: str,
    options_file: str,
    environment: tuple[str, ...],
    level: int | None,
    is_optional: bool,
    **flags: Any,
) -> None:
    """Add a vault; from now on the log is shipped to it. Files and variables are those of the server."""
    policy = ("keep_images", "keep_days", "window_days", "minimum_images")
    retention = {field: value for field in policy if (value := flags.pop(field)) is not None}
    output = Output(flags)
    with output.errors(), Jobs(target_of(flags)) as jobs:
        row: dict[str, Any] = {"id": str(uuid4()), "name": name, "url": _url(url), "required": not is_optional}
        files = {"key_file": key_file, "passphrase_file": passphrase_file, "options_file": options_file}
        row |= {field: value for field, value in files.items() if value}
        row |= {"environment": _pairs(environment)} if environment else {}
        row |= {} if level is None else {"level": level}
        row |= {"retention": retention} if retention else {}
        jobs.insert("vaults", row)
        shown = _settled(jobs, name)
        if shown["state"] != OK:
            output.warn(f"vault {name} is added, but its state is {shown['state']}: {shown['error'] or 'see its row'}")
        output.done([_vault_line(shown), f"vault {name} added"], shown)


def _url(text: str) -> str:
    return text if "://" in text else Path(text).absolute().as_uri()


def _pairs(texts: tuple[str, ...]) -> dict[str, str]:
    for text in texts:
        if "=" not in text:
            raise BadSetting(f"--env takes OPTION=VARIABLE, not {text}.")
    return dict(text.split("=", 1) for text in texts)


def _settled(jobs: Jobs, name: str) -> dict[str, Any]:
    """The vault's row once the server has tried it."""
    until_s = time.monotonic() + READY_WAIT_S
    while True:
        row = jobs.named("vaults", name)
        if row["state"] != STARTING or time.monotonic() >= until_s:
            return row
        time.sleep(POLL_S)


def _vault_line(row: dict[str, Any]) -> str:
    parts = [f"{row['name']}: {row['url']}", str(row["state"])]
    if row["error"]:
        parts.append(str(row["error"]))
    if row["shipped_index"] is not None:
        parts.append(f"log shipped up to entry {row['shipped_index']}")
    if row["gap"] is not None:
        parts.append(f"gap {row['gap']:.1f} s")
    return ", ".join(parts)


@vault.command("list", epilog=EXIT_CODES)
@target_flags
def list_vaults(**flags: Any) -> None:
    """List the server's vaults and how the shipping of the log goes."""
    output = Output(flags)
    with output.errors(), Jobs(target_of(flags)) as jobs:
        rows = jobs.rows("vaults")
        output.done([_vault_line(row) for row in rows] or ["The server has no vaults."], {"vaults": rows})


@vault.command("check", epilog=f"{EXIT_CODES} A check that fails is a failure.")
@click.argument("name", required=False)
@vault_flags
@target_flags
def check(name: str | None, **flags: Any) -> None:
    """Check that vaults can be reached, are this cluster's, and have the newest of the log; a line each."""
    output, given = Output(flags), VaultFlags.take(flags)
    with output.errors():
        checks = _check_url(given) if given.is_url else []
        if not given.is_url:
            with Jobs(target_of(flags)) as jobs:
                wanted = name or given.vault
                rows = [jobs.named("vaults", wanted)] if wanted else jobs.rows("vaults")
                checks = [line for row in rows for line in _check_row(jobs, row)]
        failed = [what for what, why in checks if why]
        lines = [f"{what}: {f'FAILED: {why}' if why else 'ok'}" for what, why in checks]
        document = {"checks": [{"check": what, "ok": not why, "why": why or None} for what, why in checks]}
        output.done(lines, document, FAILED if failed else 0)


def _check_row(jobs: Jobs, row: dict[str, Any]) -> list[tuple[str, str]]:
    name = row["name"]
    checks = [(f"{name}: log is shipped", "" if row["state"] == OK else f"{row['state']}, {row['error'] or ''}")]
    missing = row["missing"]
    checks.append((f"{name}: log without holes", f"lacks entries {missing[0]} to {missing[1]}" if missing else ""))
    try:
        contents = jobs.row("vault_contents", name) or {}
    except ToolFailed as error:
        return [*checks, (f"{name}: can be read", error.message)]
    return [*checks, (f"{name}: can be read", ""), *_check_contents(name, contents)]


def _check_url(given: VaultFlags) -> list[tuple[str, str]]:
    from backup.inventory import inventory

    return [(f"{given.vault}: can be read", ""), *_check_contents(str(given.vault), inventory(given.open()))]


def _check_contents(name: str, contents: dict[str, Any]) -> list[tuple[str, str]]:
    damaged = contents["damaged"]
    whole = [image for image in contents["images"] if not image["selection"]]
    return [
        (f"{name}: manifests open", damaged[0]["why"] if damaged else ""),
        (f"{name}: has an image of the whole server", "" if whole else "take one with `rewinddb backup`"),
    ]


@vault.command("sync", epilog=EXIT_CODES)
@click.argument("source", metavar="FROM")
@click.argument("target", metavar="TO")
@target_flags
def sync(source: str, target: str, **flags: Any) -> None:
    """Copy to the vault TO what it lacks of the vault FROM, as it is stored."""
    output = Output(flags)
    with output.errors(), Jobs(target_of(flags)) as jobs:
        asked = {"task": "sync", "vaults": [source], "to": target}
        row = jobs.do("backup_tasks", asked, "sync", output.shows_bar)
        result = (row["result"] or {}).get(source, {})
        copied = f"{plural(result['images'], 'image', 'images')}, {result['objects']} objects, {size(result['bytes'])}"
        output.done([f"{source} to {target}: {copied}", "sync successful"], row)


@vault.command("key", epilog=EXIT_CODES)
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--add", "is_rotation", is_flag=True, help="Add a newer key to a file that is there.")
@output_flags
def key(file: Path, is_rotation: bool, **flags: Any) -> None:
    """Make a key file for a vault. What is written is encrypted with its last key, older ones open what is there."""
    from backup.sealing import key_id, new_key, read_key_file

    output = Output(flags)
    with output.errors():
        if file.exists() != is_rotation:
            raise BadSetting(
                f"{file} is there already; --add puts a newer key into it."
                if file.exists()
                else f"{file} is not there; make it without --add."
            )
        before = read_key_file(file).ids if is_rotation else []
        made = new_key()
        handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        with os.fdopen(handle, "wb") as out:
            out.write(base64.b64encode(made) + b"\n")
            out.flush()
            os.fsync(out.fileno())
        ids = [*before, key_id(made).hex()]
        output.done(
            [f"{file}: key {ids[-1]}, {plural(len(ids), 'key', 'keys')} in all"], {"file": str(file), "keys": ids}
        )


def _setting(command_name: str, table: str, changes: dict[str, Any], said: str, group: click.Group, text: str) -> None:
    """A verb that changes a field of a named row."""

    @group.command(command_name, help=text, epilog=EXIT_CODES)
    @click.argument("name")
    @target_flags
    def change(name: str, **flags: Any) -> None:
        output = Output(flags)
        with output.errors(), Jobs(target_of(flags)) as jobs:
            jobs.update(table, jobs.named(table, name)["id"], changes)
            output.done([f"{name} {said}"], jobs.named(table, name))


def _removal(table: str, group: click.Group, text: str) -> None:
    """The verb that removes a named row."""

    @group.command("remove", help=text, epilog=EXIT_CODES)
    @click.argument("name")
    @click.option("--dry-run", is_flag=True, help="Only say whether it is there.")
    @target_flags
    def remove(name: str, dry_run: bool, **flags: Any) -> None:
        output = Output(flags)
        with output.errors(), Jobs(target_of(flags)) as jobs:
            row = jobs.named(table, name)
            if not dry_run:
                jobs.delete(table, row["id"])
            output.done([f"{name} {'would be ' if dry_run else ''}removed"], row)


_setting("pause", "vaults", {"pause": True}, "is paused", vault, "Ship no log to a vault for a while.")
_setting("resume", "vaults", {"pause": False}, "is resumed", vault, "Ship the log to a paused vault again.")
_removal("vaults", vault, "Forget a vault. What it holds stays where it is.")


@click.group("schedule", epilog=EXIT_CODES)
def schedule() -> None:
    """What the server does by itself, and when."""


@schedule.command("add", epilog=EXIT_CODES)
@click.argument("name")
@click.argument("cron")
@click.option("--timezone", default="UTC", help="Zone of the cron expression, such as Europe/Berlin. [UTC]")
@click.option("--action", type=click.Choice(ACTIONS), default="backup", help="[backup]")
@exported_flag
@click.option("--vault", "vaults", multiple=True, metavar="NAME", help="Only this vault; may be repeated. [all]")
@click.option("--depth", type=click.Choice(("manifest", "files", "rows")), help="Of verify. [files]")
@click.option("--parts", type=click.IntRange(1), help="Of verify: each run looks at one of so many parts.")
@click.option("--to", metavar="NAME", help="Of sync: the vault to copy to.")
@target_flags
def add_schedule(
    name: str,
    cron: str,
    timezone: str,
    action: str,
    wanted: tuple[str, ...],
    vaults: tuple[str, ...],
    depth: str | None,
    parts: int | None,
    to: str | None,
    **flags: Any,
) -> None:
    """Do something at the times of a cron expression, such as "0 3 * * *"."""
    output = Output(flags)
    with output.errors(), Jobs(target_of(flags)) as jobs:
        row: dict[str, Any] = {"id": str(uuid4()), "name": name, "cron": cron, "timezone": timezone, "action": action}
        row |= {**split_names(wanted), "vaults": list(vaults)}
        given = {"depth": depth, "parts": parts, "to": to}
        row |= {field: value for field, value in given.items() if value is not None}
        jobs.insert("backup_schedules", row)
        shown = jobs.named("backup_schedules", name)
        output.done([_schedule_line(shown), f"schedule {name} added"], shown)


def _schedule_line(row: dict[str, Any]) -> str:
    what = [str(row["action"]), *row["databases"], *row["tables"]]
    state = "" if row["enabled"] else ", paused"
    following = f", next {row['next_run']}" if row["next_run"] else ""
    return f"{row['name']}: {' '.join(what)} at {row['cron']} ({row['timezone']}){following}, {row['runs']} runs{state}"


@schedule.command("list", epilog=EXIT_CODES)
@target_flags
def list_schedules(**flags: Any) -> None:
    """List the schedules."""
    output = Output(flags)
    with output.errors(), Jobs(target_of(flags)) as jobs:
        rows = jobs.rows("backup_schedules")
        output.done([_schedule_line(row) for row in rows] or ["There are no schedules."], {"schedules": rows})


_setting("pause", "backup_schedules", {"enabled": False}, "is paused", schedule, "Skip a schedule's times for a while.")
_setting("resume", "backup_schedules", {"enabled": True}, "is resumed", schedule, "Take up a paused schedule again.")
_removal("backup_schedules", schedule, "Remove a schedule.")
