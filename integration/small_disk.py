"""A small file system of its own for a server, that can be filled up and freed again.

It is a tmpfs in a mount namespace of its own, which needs no rights beyond those to make one: what is to see it runs
behind `inside`. Some containers do not even give those.
"""

import functools
import json
import subprocess
import sys

from server.child import ROOT

FREE = "import os, sys; s = os.statvfs(sys.argv[1]); print(s.f_bavail * s.f_frsize)"


@functools.cache
def can_be_made():
    """Whether this machine lets us mount a file system of our own."""
    return not subprocess.run(["unshare", "-rm", "mount", "-t", "tmpfs", "none", "/mnt"], check=False).returncode


class SmallDisk:
    """Mounted at a folder until `close`. Takes `megabytes` of 2**20 bytes."""

    def __init__(self, folder, megabytes):
        folder.mkdir(parents=True)
        self.folder = folder
        script = 'mount -t tmpfs -o size="$1" none "$2" && echo mounted && exec cat'
        self._holder = subprocess.Popen(
            ["unshare", "-rm", "sh", "-c", script, "sh", f"{megabytes}m", str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._holder.stdout.readline() == "mounted\n", "this machine lets nobody mount a file system"
        pid = str(self._holder.pid)
        self.inside = ("nsenter", "-t", pid, "-U", "-m", "--preserve-credentials", f"--wd={ROOT}", "--")
        self.server = (*self.inside, sys.executable, "-m", "server")
        """The command of a server that sees it."""

    def run(self, *command):
        """A command that sees it."""
        subprocess.run([*self.inside, *command], check=True)

    @property
    def free_bytes(self):
        return json.loads(subprocess.check_output([*self.inside, sys.executable, "-c", FREE, str(self.folder)]))

    def fill(self, leave_bytes=0):
        """Takes what is free, but for so many bytes (to a megabyte)."""
        name = str(self.folder / "ballast")
        size = ["bs=1MB", f"count={(self.free_bytes - leave_bytes) // 1_000_000}"] if leave_bytes else ["bs=64K"]
        command = ["dd", "if=/dev/zero", f"of={name}", "oflag=append", "conv=notrunc", *size]
        # Filled to the brim, dd ends with an error: there is no space left.
        subprocess.run([*self.inside, *command], check=bool(leave_bytes), stderr=subprocess.DEVNULL)

    def free(self):
        """Gives back what was taken."""
        self.run("rm", "-f", str(self.folder / "ballast"))

    def close(self):
        self._holder.stdin.close()
        self._holder.wait()
        self._holder.stdout.close()
