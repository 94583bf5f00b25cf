"""The drivers and the ORM of npm, each in a small program of its own. Needs node and npm."""

import shutil
import subprocess
from pathlib import Path

import pytest

PROGRAMS = Path(__file__).parent / "drivers" / "js"


@pytest.fixture(scope="module")
def programs(tmp_path_factory):
    """A copy of the programs' folder with the packages that their lock names."""
    folder = tmp_path_factory.mktemp("js") / "programs"
    shutil.copytree(PROGRAMS, folder, ignore=shutil.ignore_patterns("node_modules"))
    npm = shutil.which("npm")
    assert npm is not None, "these tests need node and npm"
    subprocess.run([npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=folder, check=True, timeout=110)
    return folder


@pytest.mark.parametrize("program", ["official", "dash", "typescript", "orm"])
def test_program(program, server, programs):
    done = subprocess.run(
        ["node", f"{program}.js", str(server.port)],
        cwd=programs,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
