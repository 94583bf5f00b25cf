"""The commands `rewinddb dump`, `restore`, `export`, `import` and `index-rebuild`: flags in, one call, summary out.

The flags are those of RethinkDB's tools, and so are the lines that scripts look for. Exit codes: 0 done; 1 failed,
the message says why; 2 the rows are there, but something else was not restored, or the flags were wrong. One rule:
messages go to standard error, summaries to standard output unless the archive goes there.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

import click

from backup.flags import (
    clients_flag,
    delimiter_of,
    exported_flag,
    imported_flag,
    loading_flags,
    loading_of,
    outdated_flag,
    table_of,
    target_flags,
    target_of,
)
from backup.selection import Renames, Selection
from model.errors import BadSetting, RewindError

DONE, FAILED, WARNED = 0, 1, 2
_EXIT_CODES = "Exit codes: 0 done, 1 failed, 2 rows are there but something else is not, or wrong flags."


class _Output:
    """Where lines go: notices and warnings to standard error, summaries where the user looks for them.

    With --json there is one JSON document in place of the summary, for failures too.
    """

    def __init__(self, flags: dict[str, Any], to_stderr: bool = False) -> None:
        self.quiet = flags.pop("quiet")
        self.debug = flags.pop("debug")
        self.as_json = flags.pop("as_json")
        self.to_stderr = to_stderr
        self.warnings: list[str] = []

    def say(self, line: str) -> None:
        if not self.quiet and not self.as_json:
            click.echo(line, err=True)

    def warn(self, line: str) -> None:
        self.warnings.append(line)
        click.echo(f"Warning: {line}", err=True)

    def summary(self, line: str) -> None:
        if not self.quiet and not self.as_json:
            click.echo(line, err=self.to_stderr)

    def done(self, lines: Sequence[str], **document: Any) -> NoReturn:
        """Ends the process with the summary."""
        for line in lines:
            self.summary(line)
        self._document({**document, "warnings": self.warnings})
        sys.exit(WARNED if self.warnings else DONE)

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Errors as one line and an exit code; with --debug as they are."""
        try:
            yield
        except BadSetting as error:
            raise click.UsageError(error.message) from error
        except RewindError as error:
            if self.debug:
                raise
            click.echo(str(error) if str(error).startswith("Error:") else f"Error: {error}", err=True)
            self._document({"error": error.message, "hint": error.hint, "warnings": self.warnings})
            sys.exit(FAILED)
        except KeyboardInterrupt:
            click.echo("\nInterrupted", err=True)
            sys.exit(FAILED)

    def _document(self, document: dict[str, Any]) -> None:
        if self.as_json:
            click.echo(json.dumps(document), err=self.to_stderr)


@click.command(epilog=_EXIT_CODES)
@click.option(
    "-f", "--file", metavar="FILE", help="Archive to write; - is standard output. [rethinkdb_dump_DATE.tar.gz]"
)
@exported_flag
@click.option("--overwrite-file", is_flag=True, help="Overwrite the archive if it exists.")
@click.option("--compress", type=click.Choice(["gz", "zst", "none"]), help="Codec. [by the file's name, else gz]")
@click.option("--level", type=click.IntRange(0, 22), help="Compression level of the codec.")
@click.option("--threads", type=click.IntRange(1), default=os.cpu_count() or 1, help="Threads that compress.")
@click.option("--temp-dir", type=click.Path(file_okay=False), help="For tables too big for memory, with -f - only.")
@clients_flag(3, "Tables read at the same time.")
@outdated_flag
@target_flags
def dump(
    file: str | None,
    wanted: tuple[str, ...],
    overwrite_file: bool,
    compress: str | None,
    level: int | None,
    threads: int,
    temp_dir: str | None,
    clients: int,
    read_outdated: bool,
    **flags: Any,
) -> None:
    """Write tables, with indexes and write hooks, and if all are dumped users and permissions, into an archive.

    On RewindDB all tables are of one point in time. RethinkDB's restore takes the archive unless it is zst.
    """
    from backup.archives.codec import codec_for_file, codec_named
    from backup.archives.dump import DumpOptions, default_top
    from backup.archives.dump import dump as make

    top = default_top()
    codec = compress or codec_for_file(file or "")
    path = None if file == "-" else Path(file or f"{top}.tar{codec_named(codec).suffix}").absolute()
    output = _Output(flags, to_stderr=path is None)
    with output.errors():
        if path is not None and path.exists() and not (overwrite_file and path.is_file()):
            raise BadSetting(f"Output file already exists: {path}")
        if temp_dir is not None:
            Path(temp_dir).mkdir(parents=True, exist_ok=True)
        if codec == "gz" and level is not None and level > 9:
            raise BadSetting("--level of gz is 0 to 9")
        options = DumpOptions(
            target=target_of(flags),
            file=path,
            top=top,
            selection=Selection.parse(wanted),
            clients=clients,
            outdated=read_outdated,
            codec=codec,
            level=level,
            threads=threads,
            temp_dir=temp_dir,
            show_bar=not output.quiet,
        )
        summary = make(options, output.say)
    done = f"Done ({summary.seconds:.2f} seconds): {path or '<stdout>'}"
    output.done([f"    {summary.line()}", done], file=str(path) if path else None, **asdict(summary))


@click.command(epilog=_EXIT_CODES)
@click.argument("file")
@imported_flag
@click.option("--as", "renames", multiple=True, metavar="FROM=TO", help="Under another name: db=db or db.t=db.t.")
@click.option("--no-users", is_flag=True, help="Leave users and permissions as they are.")
@click.option("--temp-dir", type=click.Path(exists=True, file_okay=False), help="For archives of RethinkDB from -.")
@loading_flags
@target_flags
def restore(
    file: str,
    wanted: tuple[str, ...],
    renames: tuple[str, ...],
    no_users: bool,
    temp_dir: str | None,
    **flags: Any,
) -> None:
    """Load an archive made by `rewinddb dump` or `rethinkdb dump`; FILE may be - for standard input."""
    from backup.archives.undump import RestoreOptions
    from backup.archives.undump import restore as load

    output = _Output(flags)
    path = None if file == "-" else Path(file)
    with output.errors():
        if path is not None and not path.is_file():
            raise BadSetting(f"Archive file does not exist: {file}")
        options = RestoreOptions(
            target=target_of(flags),
            file=path,
            selection=Selection.parse(wanted),
            renames=Renames.parse(renames),
            with_users=not no_users,
            temp_dir=temp_dir,
            show_bar=not output.quiet,
            **loading_of(flags),
        )
        summary = load(options, output.say, output.warn)
    output.done([f"  {summary.line()}"], file=file, **asdict(summary))


@click.command(epilog=_EXIT_CODES)
@click.option("-d", "--directory", type=click.Path(path_type=Path), help="Folder to make. [rethinkdb_export_DATE]")
@exported_flag
@click.option("--format", "form", type=click.Choice(["json", "csv", "ndjson"]), default="json", help="[json]")
@click.option("--fields", metavar="FIELD,...", help="Only these fields; needed for csv.")
@click.option("--delimiter", metavar="CHARACTER", help="Between csv fields; '\\t' is a tab. [,]")
@clients_flag(3, "Tables read at the same time.")
@outdated_flag
@target_flags
def export(
    directory: Path | None,
    wanted: tuple[str, ...],
    form: str,
    fields: str | None,
    delimiter: str | None,
    clients: int,
    read_outdated: bool,
    **flags: Any,
) -> None:
    """Write tables into a folder of files."""
    from backup.archives.exports import ExportOptions, default_folder
    from backup.archives.exports import export as make

    output = _Output(flags)
    with output.errors():
        folder = (directory or default_folder()).absolute()
        if folder.exists():
            raise BadSetting(f"--directory value already exists: {folder}")
        selection = Selection.parse(wanted)
        if fields and (len(selection.wanted) != 1 or selection.wanted[0].table is None):
            raise BadSetting("The --fields option can only be used when exporting a single table")
        if form == "csv" and not fields:
            raise BadSetting("CSV files require the '--fields' option to be specified.")
        if form != "csv" and delimiter:
            raise BadSetting("--delimiter option is only valid for CSV file formats")
        options = ExportOptions(
            target=target_of(flags),
            folder=folder,
            selection=selection,
            form=form,
            fields=tuple(fields.split(",")) if fields else None,
            delimiter=delimiter_of(delimiter),
            clients=clients,
            outdated=read_outdated,
            show_bar=not output.quiet,
        )
        summary = make(options, output.say)
    lines = [f"    {summary.line()}", f"  Done ({summary.seconds:.2f} seconds)"]
    output.done(lines, directory=str(folder), **asdict(summary))


@click.command("import", epilog=_EXIT_CODES)
@click.option("-d", "--directory", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Folder.")
@click.option("-f", "--file", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="One file.")
@click.option("--table", metavar="DB.TABLE", help="Where --file goes.")
@imported_flag
@click.option("--format", "form", type=click.Choice(["json", "csv", "ndjson"]), help="Of --file. [by its name]")
@click.option("--fields", metavar="FIELD,...", help="Only these fields of --file.")
@click.option("--pkey", metavar="PRIMARY_KEY", help="Primary key of the created table.")
@click.option("--delimiter", metavar="CHARACTER", help="Between csv fields; '\\t' is a tab. [,]")
@click.option("--no-header", is_flag=True, help="The csv has no line with field names.")
@click.option("--custom-header", metavar="FIELD,...", help="Field names to use for the csv.")
@loading_flags
@target_flags
def import_(
    directory: Path | None,
    file: Path | None,
    table: str | None,
    wanted: tuple[str, ...],
    form: str | None,
    fields: str | None,
    pkey: str | None,
    delimiter: str | None,
    no_header: bool,
    custom_header: str | None,
    **flags: Any,
) -> None:
    """Load a folder made by export, or one file into one table."""
    from backup.archives.imports import ImportOptions, import_files

    output = _Output(flags)
    only_for_file = {
        "--table": table,
        "--format": form,
        "--fields": fields,
        "--pkey": pkey,
        "--delimiter": delimiter,
        "--no-header": no_header,
        "--custom-header": custom_header,
    }
    with output.errors():
        _check_import(directory, file, wanted, only_for_file)
        loading = loading_of(flags)
        if pkey:
            loading["create"]["primary_key"] = pkey
        options = ImportOptions(
            target=target_of(flags),
            folder=directory,
            file=file,
            table=table_of(table) if table else None,
            selection=Selection.parse(wanted),
            form=form,
            fields=tuple(fields.split(",")) if fields else None,
            delimiter=delimiter_of(delimiter),
            header=tuple(custom_header.split(",")) if custom_header else None,
            has_header=not no_header,
            show_bar=not output.quiet,
            **loading,
        )
        summary = import_files(options, output.warn)
    output.done([f"  {summary.line()}", f"  Done ({summary.seconds:.0f} seconds)"], **asdict(summary))


def _check_import(
    directory: Path | None, file: Path | None, wanted: tuple[str, ...], only_for_file: dict[str, Any]
) -> None:
    """BadSetting for flags that do not go together."""
    if (directory is None) == (file is None):
        raise BadSetting("Either -f/--file or -d/--directory is required, and only one of them")
    if directory is not None:
        for flag, value in only_for_file.items():
            if value:
                raise BadSetting(f"{flag} option is not valid when importing a directory")
    elif wanted:
        raise BadSetting("-i/--import can only be used when importing a directory")
    elif not only_for_file["--table"]:
        raise BadSetting("A value is required for --table when importing from a file")
    elif only_for_file["--no-header"] and not only_for_file["--custom-header"]:
        raise BadSetting("--custom-header is required if --no-header is specified")


@click.command("index-rebuild", epilog=_EXIT_CODES)
@click.option("-r", "--rebuild", "wanted", multiple=True, metavar="DB|DB.TABLE", help="Only this; may be repeated.")
@click.option("-n", "concurrent", type=click.IntRange(1), default=1, help="Indexes built at the same time. [1]")
@click.option("--force", is_flag=True, help="Also indexes that are not outdated.")
@target_flags
def index_rebuild(wanted: tuple[str, ...], concurrent: int, force: bool, **flags: Any) -> None:
    """Make outdated indexes anew; the old one serves until the new one is there."""
    import time

    from backup.archives.index_rebuild import RebuildOptions, rebuild

    output = _Output(flags)
    began = time.monotonic()
    with output.errors():
        options = RebuildOptions(
            target_of(flags), Selection.parse(wanted), concurrent, force, show_bar=not output.quiet
        )
        count = rebuild(options, output.summary)
    seconds = time.monotonic() - began
    output.done([f"Done ({seconds:.0f} seconds)"], indexes=count, seconds=seconds)
