"""What the tests of backups on real servers have in common: waiting for what takes its time, asking for jobs."""

import os
import time
from contextlib import contextmanager

from rethinkdb import r

SYSTEM = r.db("rethinkdb")
DEADLINE_S = 60


def until(ask, deadline_s=DEADLINE_S):
    """Asks again until the answer is true, and gives it; fails after the deadline."""
    ends = time.monotonic() + deadline_s
    while True:
        answer = ask()
        if answer:
            return answer
        assert time.monotonic() < ends, "what was waited for did not happen in time"
        time.sleep(0.1)


def add_vault(conn, url, name="main", **fields):
    """Adds a vault and waits until the log flows into it."""
    result = SYSTEM.table("vaults").insert({"name": name, "url": url, **fields}).run(conn)
    assert result["inserted"] == 1, result
    until(lambda: vault(conn, name)["state"] == "ok")


def vault(conn, name="main"):
    [row] = SYSTEM.table("vaults").filter({"name": name}).run(conn)
    return row


def job(conn, table="backups", **row):
    """Asks for a job and waits for its end: (row or None, error or None)."""
    asked = SYSTEM.table(table).insert({**row, "wait": True}, return_changes="always").run(conn)
    return asked["changes"][0]["new_val"] if not asked["errors"] else None, asked.get("first_error")


def done(conn, table="backups", **row):
    """Asks for a job, which has to succeed; its row."""
    finished, error = job(conn, table, **row)
    assert error is None, error
    return finished


def shipped(conn, name="main"):
    """Waits until the vault has the whole log."""
    until(lambda: vault(conn, name)["gap"] == 0)


def events(conn):
    """What `backup_log` says, in order."""
    return list(SYSTEM.table("backup_log").order_by("id")["event"].run(conn))


@contextmanager
def stuck(vault_folder):
    """Whoever reads the last block of the vault's newest image waits for it as long as this lasts.

    So what a restore does before that can be looked at, and ended, however fast it is.
    """
    block = max(vault_folder.glob("images/*/*/[0-9]*"))
    assert block.name != "00000000", "one block is no way to be in the middle"
    aside = block.with_name("aside")
    block.rename(aside)
    os.mkfifo(block)
    try:
        yield
    finally:
        aside.rename(block)
