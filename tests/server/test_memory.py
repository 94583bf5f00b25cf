"""What the cache takes of a machine's memory, and of a container's."""

import logging

import psutil
import pytest

from server import memory
from server.memory import GIB, available_bytes, cache_size

MIB = 1 << 20


def make_group(folder, names, limit, used, inactive):
    """A control group's folder as the kernel shows it; names: of its files for limit, use, and what of it is left."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / names[1]).write_text(f"{limit}\n")
    (folder / names[2]).write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 5\n{names[3]} {inactive}\nfile 9\n")


def with_groups(root, text):
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(text)


@pytest.fixture
def machine(monkeypatch):
    """Sets the memory that the machine has available."""

    def available(size):
        monkeypatch.setattr(memory, "available_bytes", lambda: size)

    return available


@pytest.mark.parametrize(
    ("available", "size"),
    [(24 * GIB, 23 * GIB // 2), (3 * GIB, GIB), (GIB + 300 * MIB, 150 * MIB), (GIB, 100 * MIB), (50 * MIB, 100 * MIB)],
)
def test_auto_is_half_of_what_is_available_less_a_gib(machine, available, size):
    machine(available)
    assert cache_size("auto") == size


def test_a_size_that_is_set_is_taken_and_one_that_does_not_fit_is_warned_of(machine, caplog):
    machine(4 * GIB)
    with caplog.at_level(logging.WARNING):
        assert cache_size(3 * GIB) == 3 * GIB
    assert not caplog.messages
    assert cache_size(3 * GIB + MIB) == 3 * GIB + MIB
    assert caplog.messages == [
        "A cache of 3073 MB leaves little memory for the server and its queries (available: 4096 MB)"
    ]
    assert cache_size(5 * GIB) == 5 * GIB
    assert caplog.messages[1:] == ["The cache may grow to 5120 MB; only 4096 MB of memory are available"]


def test_without_control_groups_it_is_the_machine_that_counts(tmp_path):
    assert available_bytes(tmp_path) == pytest.approx(psutil.virtual_memory().available, rel=0.2)


@pytest.mark.parametrize(
    ("names", "line"), [(memory.V2, "0::/box/inner\n"), (memory.V1, "7:cpu,cpuacct:/other\n4:memory:/box/inner\n")]
)
def test_the_tightest_group_counts_and_pages_of_files_in_it_are_free(tmp_path, names, line):
    with_groups(tmp_path, line)
    top = tmp_path / names[0]
    make_group(top / "box/inner", names, "max" if names is memory.V2 else 1 << 62, 10 * MIB, MIB)
    make_group(top / "box", names, 64 * MIB, 40 * MIB, 10 * MIB)
    make_group(top, names, 512 * MIB, 40 * MIB, 10 * MIB)
    assert available_bytes(tmp_path) == 34 * MIB


def test_a_container_sees_its_own_group_as_the_top(tmp_path):
    with_groups(tmp_path, "0::/\n")
    make_group(tmp_path / memory.V2[0], memory.V2, 48 * MIB, 8 * MIB, 0)
    assert available_bytes(tmp_path) == 40 * MIB


def test_a_group_that_uses_more_than_its_limit_has_nothing_left(tmp_path):
    with_groups(tmp_path, "0::/\n")
    make_group(tmp_path / memory.V2[0], memory.V2, 8 * MIB, 9 * MIB, 0)
    assert available_bytes(tmp_path) == 0


def test_a_path_out_of_the_folder_of_groups_ends(tmp_path):
    """Where a process was moved out of the namespace that it looks from, the kernel tells a path with dots."""
    with_groups(tmp_path, "0::/../elsewhere\n")
    assert available_bytes(tmp_path) > 0
