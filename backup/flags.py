"""The flags that RethinkDB's tools have in common, and what they mean.

One rule: a flag's value is checked here, so that no command starts with a wrong one.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from backup.selection import TableName, parse_name
from model.errors import BadSetting

Command = Callable[..., Any]


def target_flags(command: Command) -> Command:
    """How to reach the server, as all of RethinkDB's tools take it."""
    flags = [
        click.option("-q", "--quiet", is_flag=True, help="Suppress non-error messages."),
        click.option("--json", "as_json", is_flag=True, help="Print one JSON document in place of the summary."),
        click.option("--debug", is_flag=True, hidden=True),
        click.option("-c", "--connect", metavar="HOST:PORT", help="Server to connect to. [localhost:28015]"),
        click.option("--driver-port", type=click.IntRange(1, 65535), envvar="RETHINKDB_DRIVER_PORT", default=28015),
        click.option("--host-name", envvar="RETHINKDB_HOSTNAME", default="localhost", metavar="HOST"),
        click.option("-u", "--user", envvar="RETHINKDB_USER", default="admin", help="User name. [admin]"),
        click.option("-p", "--password", "ask_password", is_flag=True, help="Ask for the password."),
        click.option("--password-file", type=click.Path(exists=True, dir_okay=False), help="Read it from a file."),
        click.option("--tls-cert", type=click.Path(exists=True, dir_okay=False), help="Certificate to trust, for TLS."),
    ]
    for flag in reversed(flags):
        command = flag(command)
    return command


def loading_flags(command: Command) -> Command:
    """How rows are written, as restore and import take it."""
    number = click.IntRange(1)
    flags = [
        click.option("--clients", type=number, default=8, help="Connections that write. [8]"),
        click.option("--hard-durability", is_flag=True, help="Write with hard durability: slower."),
        click.option("--force", is_flag=True, help="Import even into tables that exist, replacing rows."),
        click.option("--no-secondary-indexes", is_flag=True, help="Do not create secondary indexes."),
        click.option("--shards", type=number, help="Shards of created tables. [1]"),
        click.option("--replicas", type=number, help="Replicas of created tables. [1]"),
        click.option("--batch-size", type=number, default=None, hidden=True),
        click.option("--writers-per-table", type=number, default=None, hidden=True),
        click.option("--max-document-size", type=number, default=None, help="Largest row in bytes. [128 MiB]"),
        click.option("--max-nesting-depth", type=number, default=None, help="Accepted; the parser's limit is 900."),
    ]
    for flag in reversed(flags):
        command = flag(command)
    return command


def target_of(flags: dict[str, Any]) -> Any:
    """The server that the flags name; takes them out of `flags`."""
    from backup.driver_link import Target

    host, port = flags.pop("host_name"), flags.pop("driver_port")
    connect = flags.pop("connect")
    if connect:
        host, colon, port_text = connect.strip().rpartition(":")
        if not colon:
            host, port_text = connect.strip(), str(port)
        if not port_text.isdigit() or not 0 < int(port_text) < 65536:
            raise click.UsageError(f"Invalid 'host:port' format: {connect}")
        port = int(port_text)
        host = host.strip("[]") or "localhost"
    password_file = flags.pop("password_file")
    password = Path(password_file).read_text("utf-8").rstrip("\r\n") if password_file else None
    user = flags.pop("user")
    if flags.pop("ask_password") and password is None:
        password = click.prompt(f"Password for `{user}`", hide_input=True, err=True)
    return Target(host, port, user, password, flags.pop("tls_cert"))


def loading_of(flags: dict[str, Any]) -> dict[str, Any]:
    """What the flags of `loading_flags` mean; takes them out of `flags`."""
    create = {key: flags.pop(key) for key in ("shards", "replicas")}
    loading: dict[str, Any] = {
        "clients": flags.pop("clients"),
        "durability": "hard" if flags.pop("hard_durability") else "soft",
        "force": flags.pop("force"),
        "with_indexes": not flags.pop("no_secondary_indexes"),
        "create": {key: value for key, value in create.items() if value is not None},
    }
    for flag, name in (("batch_size", "batch_rows"), ("max_document_size", "row_bytes_max")):
        if (value := flags.pop(flag)) is not None:
            loading[name] = value
    flags.pop("writers_per_table")
    flags.pop("max_nesting_depth")
    return loading


def clients_flag(default: int, text: str) -> Callable[[Command], Command]:
    return click.option("--clients", type=click.IntRange(1), default=default, help=f"{text} [{default}]")


exported_flag = click.option(
    "-e", "--export", "wanted", multiple=True, metavar="DB|DB.TABLE", help="Only this; may be repeated."
)
imported_flag = click.option(
    "-i", "--import", "wanted", multiple=True, metavar="DB|DB.TABLE", help="Only this; may be repeated."
)
outdated_flag = click.option("--read-outdated", is_flag=True, help="Read in mode outdated, where there are no views.")


def table_of(text: str) -> TableName:
    name = parse_name(text)
    if name.table is None:
        raise BadSetting(f"Invalid --table option: {text}")
    return name


def delimiter_of(text: str | None) -> str:
    delimiter = "\t" if text == "\\t" else text or ","
    if len(delimiter) != 1:
        raise BadSetting(f"Specify exactly one character for the --delimiter option: {text}")
    return delimiter
