"""How fast this machine's Pythons are: python3 benchmarks/interpreter.py [--fastest].

One rule: it needs nothing but a Python 3, since `make` asks it which one the environment is to be made of.

Builds of one version differ more than versions do: with profile-guided and link-time optimization, as Linux
distributions and python.org have it and pyenv by itself has not, the interpreter is a quarter faster.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

NAMES = ("python3.11", "python3.12", "python3.13", "python3")
OLDEST = (3, 11)
STEPS = 100_000
ATTEMPTS = 7
ROUNDS = 2  # all are asked again, as a machine may be slower for a second


class Pair:
    """What is made and thrown away in the loop."""

    __slots__ = ("left", "right")

    def __init__(self, left: int, right: int) -> None:
        self.left = left
        self.right = right

    def plus(self, other: Pair) -> Pair:
        """A new one: a call, an object, two attributes."""
        return Pair(self.left + other.left, self.right + other.right)


def step_ns() -> float:
    """What a step of calls, small objects and dicts takes this Python, in nanoseconds of CPU; the best attempt."""
    best = float("inf")
    for _ in range(ATTEMPTS):
        kept: dict[int, int] = {}
        pair = Pair(1, 2)
        begin = time.process_time()
        for number in range(STEPS):
            pair = pair.plus(Pair(number & 7, 1))
            kept[number & 1023] = pair.left
            if pair.left > 1000:
                pair = Pair(0, 0)
        best = min(best, time.process_time() - begin)
    return best * 1e9 / STEPS


def can_be_used() -> bool:
    """Whether this Python is new enough and can make environments, which some distributions ship apart."""
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError:
        return False
    return sys.version_info >= OLDEST


def pythons() -> list[tuple[float, str, str]]:
    """(nanoseconds of a step, version, path) of every Python in PATH that can be used, the fastest first."""
    found: dict[str, tuple[float, str, str]] = {}
    folders = os.environ.get("PATH", "").split(os.pathsep)
    paths = {path.resolve() for folder in folders for name in NAMES if os.access(path := Path(folder, name), os.X_OK)}
    for path in sorted(paths) * ROUNDS:
        try:
            asked = subprocess.run([path, __file__, "--this"], capture_output=True, text=True, timeout=60)
        except (OSError, subprocess.TimeoutExpired):
            continue  # a name that leads nowhere
        words = asked.stdout.split(maxsplit=2)
        if asked.returncode == 0 and len(words) == 3:
            told = (float(words[0]), words[1], words[2].strip())
            found[told[2]] = min(told, found.get(told[2], told))
    return sorted(found.values())


def main(arguments: list[str]) -> int:
    """The program; its exit code."""
    if arguments == ["--this"]:
        if not can_be_used():
            return 1
        sys.stdout.write(f"{step_ns():.0f} {sys.version.split()[0]} {Path(sys.executable).resolve()}\n")
        return 0
    found = pythons()
    if arguments == ["--fastest"]:
        sys.stdout.writelines(path + "\n" for _, _, path in found[:1])
        return 0 if found else 1
    sys.stdout.writelines(f"{ns:6.0f} ns  {version:8}  {path}\n" for ns, version, path in found)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
