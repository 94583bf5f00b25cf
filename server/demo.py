"""`make demo`: lose a table and get it back, step by step, against a server of its own.

One rule: it uses what a user has, the official driver with `import rewinddb` and the command `rewinddb`, and checks
what it shows.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import click
from rethinkdb import r

import rewinddb  # noqa: F401 - adds backup() and restore() to the driver
from server.child import ROOT, ServerProcess


class Demo:
    """The steps of the example, on one connection to one server."""

    def __init__(self, server: ServerProcess, folder: Path) -> None:
        self.server = server
        self.folder = folder
        self.conn = server.connect()
        self.table = r.db("mydb").table("mytable")
        self.count = 0

    def run(self) -> None:
        """The whole example; raises if anything is not as it should be."""
        self.say("Create the database mydb and in it the table mytable")
        self.ask("r.db_create('mydb')", r.db_create("mydb"))
        self.ask("r.db('mydb').table_create('mytable')", r.db("mydb").table_create("mytable"))
        self.say("Insert John and Jane")
        self.insert({"id": 1, "name": "John"}, {"id": 2, "name": "Jane"})
        self.show(["Jane", "John"])
        self.say("Keep backups in a folder, and back up")
        self.command("vault", "add", "main", (self.folder / "backups").as_uri())
        backup = self.ask("r.db('mydb').backup()", r.db("mydb").backup())
        click.echo(f"    backup {backup['state']}: {backup['rows']} rows at log index {backup['log_index']}")
        self.say("Insert Alice and Bob")
        self.insert({"id": 3, "name": "Alice"}, {"id": 4, "name": "Bob"})
        self.show(["Alice", "Bob", "Jane", "John"])
        self.say("Lose the table")
        self.ask("r.db('mydb').table_drop('mytable')", r.db("mydb").table_drop("mytable"))
        click.echo(f"    tables in mydb: {r.db('mydb').table_list().run(self.conn)}")
        self.say("Restore")
        restored = self.ask("r.db('mydb').restore()", r.db("mydb").restore())
        click.echo(f"    restore {restored['state']}: {', '.join(restored['restored'])}, {restored['rows']} rows")
        self.say("John and Jane are back, as they were when the backup was made")
        self.show(["Jane", "John"])
        self.conn.close()

    def say(self, what: str) -> None:
        self.count += 1
        click.secho(f"\n{self.count}. {what}", bold=True)

    def ask(self, text: str, query: Any) -> Any:
        """Runs a query and shows it."""
        click.echo(f"    {text}")
        return query.run(self.conn)

    def insert(self, *rows: dict[str, Any]) -> None:
        answer = self.ask(f"r.db('mydb').table('mytable').insert({list(rows)})", self.table.insert(list(rows)))
        click.echo(f"    inserted: {answer['inserted']}, errors: {answer['errors']}")

    def show(self, expected: list[str]) -> None:
        """Shows the rows, and stops the demo if they are not the expected people."""
        rows = list(self.table.order_by("id").run(self.conn))
        for row in rows:
            click.echo(f"    {row}")
        if sorted(row["name"] for row in rows) != expected:
            raise SystemExit(f"The demo failed: expected the rows of {', '.join(expected)}.")

    def command(self, *arguments: str) -> None:
        """Runs a verb of `rewinddb` against the demo's server and shows what it prints."""
        click.echo(f"    $ rewinddb {' '.join(arguments)} -c 127.0.0.1:{self.server.port}")
        done = subprocess.run(
            [sys.executable, "-m", "server", *arguments, "-c", f"127.0.0.1:{self.server.port}"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        for line in (done.stdout + done.stderr).splitlines():
            click.echo(f"    {line}")
        if done.returncode:
            raise SystemExit(f"The demo failed: `rewinddb {arguments[0]}` ended with exit code {done.returncode}.")


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="rewinddb-demo-") as name:
        folder = Path(name)
        click.secho("RewindDB demo: lose a table, and get it back.", bold=True)
        with ServerProcess(folder / "data") as server:
            click.echo(f"A server runs on port {server.port} with its data in {server.data_dir}.")
            Demo(server, folder).run()
            code = server.stop()
        if code:
            raise SystemExit(f"The demo failed: the server ended with exit code {code}.")
    click.secho("\nDone: the server has stopped and its folder is gone.", bold=True)


if __name__ == "__main__":
    main()
