"""What the verbs on backups, restores and the past have in common: flags for vaults, where lines go, exit codes.

One rule: with --json standard output is one JSON document, for failures too, and everything else goes to standard
error. Exit codes: 0 done, 1 failed (the message says why and what to do), 2 wrong flags.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn

import click

from backup.progress import Bar
from backup.selection import parse_name
from model.errors import BadSetting, RewindError

DONE: Final = 0
FAILED: Final = 1
WRONG: Final = 2
EXIT_CODES: Final = "Exit codes: 0 done, 1 failed, 2 wrong flags."

Command = Callable[..., Any]


def output_flags(command: Command) -> Command:
    """--json, --quiet: for verbs that need no server."""
    command = click.option("--json", "as_json", is_flag=True, help="Print one JSON document in place of the text.")(
        command
    )
    return click.option("-q", "--quiet", is_flag=True, help="Suppress non-error messages.")(command)


def vault_flags(command: Command) -> Command:
    """Which vault, and the files with its secrets."""
    file = click.Path(exists=True, dir_okay=False, path_type=Path)
    flags = [
        click.option("--vault", metavar="NAME|URL", help="A vault of the server by name, or any vault by its URL."),
        click.option("--vault-key", type=file, help="Key file of the vault."),
        click.option("--vault-passphrase-file", type=file, help="File with the passphrase of the vault."),
        click.option("--vault-options", type=file, help="JSON file with options of the vault's file system."),
    ]
    for flag in reversed(flags):
        command = flag(command)
    return command


@dataclass(frozen=True)
class VaultFlags:
    """What the flags say: either the name of one of the server's vaults, or a place."""

    vault: str | None
    key: Path | None
    passphrase_file: Path | None
    options: Path | None

    @classmethod
    def take(cls, flags: dict[str, Any]) -> VaultFlags:
        """Takes them out of `flags`."""
        names = ("vault", "vault_key", "vault_passphrase_file", "vault_options")
        return cls(*(flags.pop(name) for name in names))

    @property
    def is_url(self) -> bool:
        return self.vault is not None and ("://" in self.vault or self.vault.startswith(("/", "./", "../")))

    def access(self) -> Any:
        """The access to a place. Raises BadSetting if it is none."""
        from backup.access import access_to_url

        if self.vault is None or not self.is_url:
            raise BadSetting(
                "--vault has to be the URL of a vault here, such as file:///var/backups/rewinddb.",
                "`rewinddb vault list` shows the URLs of a server's vaults.",
            )
        url = self.vault if "://" in self.vault else Path(self.vault).resolve().as_uri()
        files = (self.key, self.passphrase_file, self.options)
        return access_to_url(url, *("" if file is None else str(file.absolute()) for file in files))

    def open(self, named: Callable[[str], Mapping[str, Any]] | None = None) -> Any:
        """The vault. Raises BadSetting, VaultUnavailable; UnfitArchive where there is none.

        named: the row of a server's vault, where a name will do; its files and variables have to be here, too.
        """
        from backup.access import access_from, open_vault
        from model.errors import UnfitArchive

        is_name = named is not None and self.vault is not None and not self.is_url
        vault = open_vault(access_from(named(self.vault)) if is_name else self.access())  # type: ignore[misc,arg-type]
        if vault.label() is None:
            raise UnfitArchive(f"There is no vault at {vault.url}.", "Check the URL; a vault holds a file vault.json.")
        return vault


class Output:
    """Where lines go."""

    def __init__(self, flags: dict[str, Any], to_stderr: bool = False) -> None:
        """Takes `quiet`, `as_json` and `debug` out of the flags. to_stderr: standard output is for something else."""
        self._to_stderr = to_stderr
        self.quiet = flags.pop("quiet")
        self.as_json = flags.pop("as_json")
        self.debug = flags.pop("debug", False)

    @property
    def shows_bar(self) -> bool:
        return not self.quiet

    def say(self, line: str) -> None:
        """A notice."""
        if not self.quiet and not self.as_json:
            click.echo(line, err=True)

    def warn(self, line: str) -> None:
        click.echo(f"Warning: {line}", err=True)

    def done(self, lines: Sequence[str], document: Any, code: int = DONE) -> NoReturn:
        """Ends the process with the text, or with the document."""
        if self.as_json:
            click.echo(json.dumps(document, default=str), err=self._to_stderr)
        elif not self.quiet:
            for line in lines:
                click.echo(line, err=self._to_stderr)
        sys.exit(code)

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Errors as one line, or as a document, and an exit code."""
        try:
            yield
        except RewindError as error:
            if self.debug:
                raise
            click.echo(f"Error: {error}", err=True)
            if self.as_json:
                click.echo(json.dumps({"error": error.message, "hint": error.hint}), err=self._to_stderr)
            sys.exit(WRONG if isinstance(error, BadSetting) else FAILED)
        except KeyboardInterrupt:
            click.echo("Interrupted", err=True)
            sys.exit(FAILED)


class WorkBar:
    """A bar over Progress calls: (what, done, of how many); starts over with each kind of work."""

    TITLES: Final = {"log": "replaying the log", "files": "reading files"}  # what is neither is a table's name

    def __init__(self, bar: Bar) -> None:
        self._bar = bar
        self._kind = ""
        self._done = 0

    def __call__(self, what: str, done: int, total: int) -> None:
        kind = self.TITLES.get(what, "loading rows")
        if kind != self._kind or done < self._done:
            self._kind, self._done = kind, 0
            self._bar.retitle(kind, None)
            self._bar.measure_by_rows(total)
            self._bar.rows = 0
        self._bar.add(rows=done - self._done)
        self._done = done


def key_of(text: str) -> Any:
    """A primary key on a command line: JSON, else text."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def split_names(names: Sequence[str]) -> dict[str, list[str]]:
    """`databases` and `tables` of a row, from DB and DB.TABLE. Raises BadSetting."""
    parsed = [parse_name(name) for name in names]
    return {
        "databases": [name.database for name in parsed if name.table is None],
        "tables": [str(name) for name in parsed if name.table is not None],
    }


def now_ms() -> int:
    """The wall clock."""
    return time.time_ns() // 1_000_000
