"""Which tables a command works on, and under which names: `-e`, `-i`, `-r` and `--as`.

Pure. One rule: names are checked here, so that nothing else has to think about dots, slashes or system tables.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from model.errors import BadSetting, ToolFailed

NAME = re.compile(r"[A-Za-z0-9_-]+")
SYSTEM_DATABASE = "rethinkdb"


class TableName(NamedTuple):
    """A table, or with table None a whole database."""

    database: str
    table: str | None = None

    def __str__(self) -> str:
        return self.database if self.table is None else f"{self.database}.{self.table}"


def parse_name(text: str) -> TableName:
    """`DB` or `DB.TABLE`; BadSetting if it is neither, or names the system database."""
    database, dot, table = text.partition(".")
    if not NAME.fullmatch(database) or (dot and not NAME.fullmatch(table)):
        raise BadSetting(f"Invalid db or db.table name: {text}")
    if database == SYSTEM_DATABASE:
        raise BadSetting(f"The `{SYSTEM_DATABASE}` database is special and cannot be used here")
    return TableName(database, table if dot else None)


@dataclass(frozen=True)
class Selection:
    """The tables asked for; all of them if `wanted` is empty."""

    wanted: tuple[TableName, ...] = ()

    @classmethod
    def parse(cls, texts: Iterable[str]) -> Selection:
        return cls(tuple(parse_name(text) for text in texts))

    @property
    def is_everything(self) -> bool:
        return not self.wanted

    def holds(self, database: str, table: str) -> bool:
        return not self.wanted or any(name in self.wanted for name in ((database, table), (database, None)))

    def choose(self, present: Sequence[TableName], databases: Iterable[str]) -> list[TableName]:
        """The present tables that are asked for, sorted. ToolFailed if a wanted one is not there."""
        known = set(databases)
        for name in self.wanted:
            if name.database not in known:
                raise ToolFailed(f"Database '{name.database}' not found")
            if name.table is not None and name not in present:
                raise ToolFailed(f"Table not found: '{name}'")
        return sorted(name for name in present if self.holds(name.database, name.table or ""))


@dataclass(frozen=True)
class Renames:
    """`--as FROM=TO`: a database under another name, or one table under another name or in another database."""

    databases: dict[str, str]
    tables: dict[TableName, TableName]

    @classmethod
    def parse(cls, texts: Iterable[str]) -> Renames:
        """From `old=new` and `db.old=db.new`. BadSetting if malformed or if a name is renamed twice."""
        databases: dict[str, str] = {}
        tables: dict[TableName, TableName] = {}
        for text in texts:
            old_text, equals, new_text = text.partition("=")
            if not equals:
                raise BadSetting(f"--as takes FROM=TO, not {text}")
            old, new = parse_name(old_text), parse_name(new_text)
            if (old.table is None) != (new.table is None):
                raise BadSetting(f"--as takes a database for a database or a table for a table, not {text}")
            if old.database in databases if old.table is None else old in tables:
                raise BadSetting(f"--as renames {old} twice")
            if old.table is None:
                databases[old.database] = new.database
            else:
                tables[old] = new
        return cls(databases, tables)

    def database(self, name: str) -> str:
        return self.databases.get(name, name)

    def table(self, name: TableName) -> TableName:
        if name in self.tables:
            return self.tables[name]
        return TableName(self.database(name.database), name.table)

    def check_distinct(self, names: Iterable[TableName]) -> None:
        """BadSetting if two of the tables would come under the same name."""
        taken: dict[TableName, TableName] = {}
        for name in names:
            new = self.table(name)
            if new in taken:
                raise BadSetting(f"{taken[new]} and {name} would both become {new}")
            taken[new] = name
