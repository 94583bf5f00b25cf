"""The official Python driver over each of its loops, and ORMs of PyPI, each in a small program of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAMS = Path(__file__).parent / "drivers" / "python"
DOUBLETHINK = "doublethink==0.4.10"


def tell(program, server, search=()):
    path = os.pathsep.join(map(str, search))
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(PROGRAMS / program), str(server.port)],
        env={**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def doublethink(tmp_path_factory):
    """A folder with doublethink alone: it names one older version of the driver as the only one it works with."""
    folder = tmp_path_factory.mktemp("doublethink")
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    subprocess.run([*install, "--target", str(folder), DOUBLETHINK], check=True, timeout=100)
    return folder


@pytest.mark.parametrize("loop", ["plain", "asyncio", "tornado", "trio", "gevent", "twisted"])
def test_loop(loop, server):
    tell(f"loop_{loop}.py", server)


def test_remodel(server):
    tell("orm_remodel.py", server)


def test_doublethink(server, doublethink):
    tell("orm_doublethink.py", server, [doublethink])
