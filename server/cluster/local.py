"""`make cluster`: the three servers of conf/cluster-1.yaml to conf/cluster-3.yaml on this machine, until Ctrl-C.

One rule: it does what a user would type, nothing more: `rewinddb serve`, `rewinddb member invite`,
`rewinddb serve --join`.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Final

import click

from conf.settings import load
from model.errors import RewindError
from server.child import READY, ROOT

COUNT: Final = 3
START_S: Final = 90.0
STOP_S: Final = 30.0


class Server:
    """One server process, whose lines are shown with its number in front."""

    def __init__(self, number: int, *flags: str) -> None:
        self.number = number
        self.config = ROOT / "conf" / f"cluster-{number}.yaml"
        self._is_ready = False
        self._changed = threading.Event()
        command = [sys.executable, "-m", "server", "serve", "--config", str(self.config), *flags]
        # In a session of its own: Ctrl-C is for this program, which stops one server after the other.
        self.process: subprocess.Popen[str] = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
        )
        self._reader = threading.Thread(target=self._show, daemon=True)
        self._reader.start()

    def _show(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            click.echo(f"{self.number} | {line.rstrip()}")
            if READY.match(line.rstrip()):
                self._is_ready = True
                self._changed.set()
        self._changed.set()

    def wait_until_ready(self) -> None:
        """Returns once drivers can connect. Raises RewindError."""
        self._changed.wait(START_S)
        if not self._is_ready:
            raise RewindError(f"Server {self.number} did not start; its lines above say why.")

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
        self._reader.join(STOP_S)


def is_member(config: Path) -> bool:
    """Whether a server's data folder belongs to a cluster already."""
    identity = Path(load(config).server.data_dir) / "identity.json"
    return identity.exists() and bool(json.loads(identity.read_text("utf-8")).get("is_begun"))


def invite(port: int) -> str:
    """A token of the server on that driver port. Raises RewindError."""
    command = [sys.executable, "-m", "server", "member", "invite", "--json", "-c", f"127.0.0.1:{port}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RewindError(f"No invitation: {done.stderr.strip()}")
    return str(json.loads(done.stdout)["token"])


def main() -> None:
    """Starts the servers, waits for Ctrl-C, stops them."""
    servers: list[Server] = []
    stop = threading.Event()
    for why in (signal.SIGINT, signal.SIGTERM):
        signal.signal(why, lambda *_: stop.set())
    try:
        first_port = load(ROOT / "conf" / "cluster-1.yaml").driver.port
        for number in range(1, COUNT + 1):
            config = ROOT / "conf" / f"cluster-{number}.yaml"
            flags = [] if number == 1 or is_member(config) else ["--join", invite(first_port)]
            servers.append(Server(number, *flags))
            if number == 1 or flags:
                servers[-1].wait_until_ready()
        click.secho(
            f"\nA cluster of {COUNT} servers. Drivers may connect to any of them; "
            f"`rewinddb status` shows the cluster; Ctrl-C stops it.\n",
            bold=True,
        )
        stop.wait()
    except RewindError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(1)
    finally:
        for server in reversed(servers):
            server.stop()


if __name__ == "__main__":
    main()
