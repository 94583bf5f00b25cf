"""What flags mean, before any server is asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from backup.archives.commands import dump, export, import_, index_rebuild, restore
from backup.archives.dump import DumpSummary, one_line
from backup.archives.undump import RestoreSummary
from backup.flags import delimiter_of, loading_flags, loading_of, table_of, target_flags, target_of
from backup.progress import Bar, plural
from model.errors import BadSetting


@click.command()
@loading_flags
@target_flags
def show(quiet: bool, debug: bool, as_json: bool, **flags: Any) -> None:
    target = target_of(flags)
    click.echo(f"{target.host} {target.port} {target.user} {target.password} {target.tls_cert}")
    click.echo(str(sorted(loading_of(flags).items())))
    assert not flags


def shown(*arguments: str, **environment: str) -> str:
    result = CliRunner().invoke(show, arguments, env=environment, input="asked\n")
    return result.output.strip().splitlines()[-2 if result.exit_code == 0 else -1]


@pytest.mark.parametrize(
    ("arguments", "environment", "expected"),
    [
        ([], {}, "localhost 28015 admin None None"),
        (["-c", "db.example:29"], {}, "db.example 29 admin None None"),
        (["-c", "db.example"], {}, "db.example 28015 admin None None"),
        (["-c", ":29"], {}, "localhost 29 admin None None"),
        (["-c", "[::1]:29"], {}, "::1 29 admin None None"),
        (["--host-name", "h", "--driver-port", "5", "-u", "me"], {}, "h 5 me None None"),
        ([], {"RETHINKDB_DRIVER_PORT": "77", "RETHINKDB_HOSTNAME": "e", "RETHINKDB_USER": "u"}, "e 77 u None None"),
        (["-p"], {}, "localhost 28015 admin asked None"),
        (["-c", "h:99999"], {}, "Error: Invalid 'host:port' format: h:99999"),
        (["-c", "h:x"], {}, "Error: Invalid 'host:port' format: h:x"),
    ],
)
def test_how_the_server_is_named(arguments: list[str], environment: dict[str, str], expected: str) -> None:
    assert shown(*arguments, **environment) == expected


def test_a_password_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("pass word\n")
    assert shown("--password-file", str(tmp_path / "secret")) == "localhost 28015 admin pass word None"


def test_how_rows_are_written() -> None:
    runner = CliRunner()
    usual = runner.invoke(show, []).output.splitlines()[1]
    assert usual == str(
        [("clients", 8), ("create", {}), ("durability", "soft"), ("force", False), ("with_indexes", True)]
    )
    flags = "--clients 2 --hard-durability --force --no-secondary-indexes --shards 2 --replicas 3 --batch-size 50"
    changed = runner.invoke(show, [*flags.split(), "--max-document-size", "99"]).output.splitlines()[1]
    assert changed == str(
        [
            ("batch_rows", 50),
            ("clients", 2),
            ("create", {"shards": 2, "replicas": 3}),
            ("durability", "hard"),
            ("force", True),
            ("row_bytes_max", 99),
            ("with_indexes", False),
        ]
    )


def test_delimiters_and_tables() -> None:
    assert [delimiter_of(text) for text in (None, ";", "\\t")] == [",", ";", "\t"]
    with pytest.raises(BadSetting):
        delimiter_of(";;")
    assert table_of("a.b") == ("a", "b")
    with pytest.raises(BadSetting):
        table_of("a")


@pytest.mark.parametrize("command", [dump, restore, export, import_, index_rebuild])
def test_help_names_the_exit_codes(command: click.Command) -> None:
    output = CliRunner().invoke(command, ["--help"]).output
    assert "Exit codes: 0 done, 1 failed, 2" in output


def test_the_lines_that_scripts_look_for() -> None:
    assert DumpSummary().line() == ("0 rows exported from 0 tables, with 0 secondary indexes, and 0 hook functions")
    assert DumpSummary(rows=1, tables=1, indexes=1, hooks=1).line() == (
        "1 row exported from 1 table, with 1 secondary index, and 1 hook function"
    )
    assert RestoreSummary(rows=1, tables=1, seconds=1.234).line() == "1 row imported to 1 table in 1.23 secs"
    assert RestoreSummary(rows=2, tables=3).line() == "2 rows imported to 3 tables in 0.00 secs"
    assert plural(2, "index", "indexes") == "2 indexes"


def test_rows_are_kept_on_one_line() -> None:
    row = b'{"a": "x\\ny"}'
    assert one_line(row) is row
    assert one_line(b'{"a":\r\n1}') == b'{"a":  1}'


def test_a_bar_without_a_terminal_counts() -> None:
    with Bar("work", 10) as bar:
        bar.add(rows=2, parts=3)
        bar.measure_by_rows(4)
        bar.add(rows=2)
        bar.retitle("more", 5)
        bar.add(parts=1)
    assert (bar.rows, bar.parts) == (4, 1)
