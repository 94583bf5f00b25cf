"""The command `rewinddb`: one function per verb, each of which calls a room and prints what it says.

One rule: nothing heavy is imported before its verb is known, so that every verb starts fast and `serve` can
choose the reactor before anything imports it. Exit codes: 0 done, 1 failed (the message says why and what to
do), 2 wrong flags or settings.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import click

from model.errors import BadSetting, RewindError
from server import VERSION

# Verbs that live with what they do: name -> module, attribute (a click command).
ELSEWHERE = {
    "dump": ("backup.archives.commands", "dump"),
    "restore": ("server.verbs.restore", "restore"),
    "undrop": ("server.verbs.backup", "undrop"),
    "backup": ("server.verbs.backup", "backup"),
    "backups": ("server.verbs.backup", "backups"),
    "verify": ("server.verbs.backup", "verify"),
    "drill": ("server.verbs.backup", "drill"),
    "expire": ("server.verbs.backup", "expire"),
    "hold": ("server.verbs.backup", "hold"),
    "vault": ("server.verbs.vault", "vault"),
    "schedule": ("server.verbs.vault", "schedule"),
    "at": ("server.verbs.past", "at"),
    "history": ("server.verbs.past", "history"),
    "diff": ("server.verbs.past", "diff"),
    "export": ("backup.archives.commands", "export"),
    "import": ("backup.archives.commands", "import_"),
    "index-rebuild": ("backup.archives.commands", "index_rebuild"),
    "member": ("server.verbs.members", "member"),
    "status": ("server.verbs.members", "status"),
}


class Verbs(click.Group):
    """A group that imports a verb's module when the verb is asked for, and turns our errors into exit codes."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*super().list_commands(ctx), *ELSEWHERE])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in ELSEWHERE:
            return super().get_command(ctx, cmd_name)
        module, attribute = ELSEWHERE[cmd_name]
        command: click.Command = getattr(import_module(module), attribute)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except RewindError as error:
            click.echo(f"Error: {error}", err=True)
            ctx.exit(2 if isinstance(error, BadSetting) else 1)


VERSION_TEXT = f"rewinddb {VERSION} (Python {sys.version.split()[0]})"


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(VERSION, message=VERSION_TEXT)
def main() -> None:
    """RewindDB: a database server that RethinkDB's drivers take for RethinkDB."""


@main.command()
def version() -> None:
    """Print the version."""
    click.echo(VERSION_TEXT)


def _number_or_text(given: str) -> int | str:
    """A setting that takes both; `conf` says which numbers and texts."""
    try:
        return int(given)
    except ValueError:
        return given


def setting(flag: str, dotted: str, help_text: str, **more: Any) -> Callable[[Any], Any]:
    """A flag of `serve` that overrides the setting at a dotted path."""
    return click.option(flag, dotted.replace(".", "__"), default=None, help=f"{help_text} [{dotted}]", **more)


@main.command()
@click.option("--config", type=click.Path(path_type=Path), help="YAML file with settings; see conf/single.yaml.")
@click.option("--check-config", is_flag=True, help="Only check the settings, then exit.")
@click.option("--bind", metavar="ADDRESS", help="Listen here on all ports; `all` is every network.")
@click.option("--no-http", is_flag=True, help="Do not open the HTTP port.")
@setting("--data-dir", "server.data_dir", "Folder that keeps everything.")
@setting("--name", "server.name", "The server's name in system tables.")
@setting("--driver-port", "driver.port", "Port for drivers; 0 takes any free one.", type=int)
@setting("--cluster-port", "cluster.port", "Port for other servers.", type=int)
@setting("--join", "cluster.join", "Become a member of the cluster that gave this token.", metavar="TOKEN")
@setting("--advertise", "cluster.advertise", "Where other servers find this one.", metavar="HOST[:PORT]")
@setting("--http-port", "http.port", "Port for HTTP.", type=int)
@setting("--cache-bytes", "storage.cache_bytes", "Memory for cached rows.", type=_number_or_text, metavar="BYTES|auto")
@setting("--durability", "writes.durability", "hard or soft, for writes that do not say.")
@setting("--initial-password-file", "admin.initial_password_file", "First line: admin's password in a new folder.")
@setting("--log-level", "logging.level", "debug, info, warning or error.")
@setting("--log-format", "logging.format", "text or json.")
def serve(config: Path | None, check_config: bool, bind: str | None, no_http: bool, **flags: Any) -> None:
    """Run a server until it is told to stop (SIGTERM or Ctrl-C)."""
    from conf.settings import load

    overrides = {name.replace("__", "."): value for name, value in flags.items()}
    if bind:
        address = "0.0.0.0" if bind == "all" else bind
        overrides |= {f"{section}.address": address for section in ("driver", "cluster", "http")}
    if no_http:
        overrides["http.enabled"] = False
    settings = load(config, overrides)
    if check_config:
        click.echo(f"{config or 'The settings'}: fine.")
        return
    from server.daemon import run

    sys.exit(run(settings))


@main.group()
def log() -> None:
    """Look into the log of a data folder."""


def data_dir_and_json(command: Callable[..., None]) -> Callable[..., None]:
    """The flags that both verbs on the log take."""
    command = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")(command)
    folder = click.Path(path_type=Path, exists=True, file_okay=False)
    return click.option("--data-dir", type=folder, required=True, help="The server's data folder.")(command)


@log.command("show")
@data_dir_and_json
def log_show(data_dir: Path, as_json: bool) -> None:
    """List what is in the log: index, time, kind, table, key."""
    from wal.show import show

    for line in show(data_dir / "log", as_json):
        click.echo(line)


@log.command("verify")
@data_dir_and_json
def log_verify(data_dir: Path, as_json: bool) -> None:
    """Read the whole log and say whether it is whole; exit code 1 if it is not."""
    from wal.show import verify

    is_whole, text = verify(data_dir / "log", as_json)
    click.echo(text)
    sys.exit(0 if is_whole else 1)
