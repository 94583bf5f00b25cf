"""What is counted as shipped is in the vault, whatever the store does; merging never leaves a hole."""

import random
from itertools import count, pairwise

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from backup.log_tail import EntriesGone, Known
from backup.manifest import SliceName
from backup.sealing import ZSTD, Keyring, new_key
from backup.shelf import marks_of, read_slice, slices_of
from backup.shipping import (
    MERGE_SLICES,
    REMOVAL_DELAY_S,
    Shipper,
    WrongVault,
    covered_slices,
    merged_name,
    slices_to_merge,
)
from backup.vault import Vault, VaultUnavailable
from model.effect import PUT_ROW, PUT_ROWS, encode
from model.errors import UnfitArchive
from model.packed_rows import pack_rows
from tests.backup.faults import READS, WRITES, Killed, at_operation, make_faulty
from wal.record import Kind, Record

names = count()


def place_for(url):
    """A place of its own; what is in memory of the ones before is let go, since every look goes through it."""
    MemoryFileSystem.store.clear()
    return f"{url}{next(names)}"


class Log:
    """A log in memory in the place of the tail of a file."""

    def __init__(self, first=1):
        self.first = first
        self.records = []

    def write(self, entries):
        for _ in range(entries):
            index = self.first + len(self.records)
            self.records.append(Record(int(Kind.ENTRY), 1, index, encode([], index * 1000)))

    @property
    def known(self):
        return Known(self.first, self.first + len(self.records) - 1, [(1, 1)])

    def read(self, first, known, max_bytes):
        if first < self.first:
            raise EntriesGone("gone")
        found = self.records[first - self.first : known.last_index - self.first + 1]
        return found[: max(1, max_bytes // 10)]


class Time:
    def __init__(self):
        self.s = 1000.0

    def ms(self):
        return int(self.s * 1000)

    def __call__(self):
        return self.s


@pytest.fixture(params=["memory", "file"])
def url(request, tmp_path):
    """A store in which objects are there whole or not at all, and one in which they are renamed."""
    return f"{request.param}://{tmp_path}/vault"


def operations(url, last):
    """The operations to try a fault at: all of them, or some where each costs a sync of the disk."""
    return range(1, last, 1 if url.startswith("memory") else 5)


@pytest.fixture
def log():
    log = Log()
    log.write(20)
    return log


def shipper_to(vault, log, time=None, slice_bytes=40):
    time = time or Time()
    return Shipper(vault, log, "c1", time.ms, time, slice_bytes)


def begun(vault, log, **options):
    shipper = shipper_to(vault, log, **options)
    shipper.begin(False, 0, log.known)
    return shipper


def ship_all(shipper, log):
    while shipper.ship(log.known):
        pass


def shipped_entries(vault):
    """What a restore would follow: entry numbers in order, each once."""
    pieces = [piece for piece in slices_of(vault) if piece.name not in covered_slices(slices_of(vault))]
    for before, after in pairwise(pieces):
        assert after.first_index <= before.last_index + 1
    have = 0
    for piece in pieces:
        have += sum(entry[0] > have for entry in read_slice(vault, piece).entries)
    return have


@pytest.mark.parametrize("encrypted", [False, True])
def test_all_is_shipped_and_gone_on_with(url, log, encrypted):
    keyring = Keyring([new_key()]) if encrypted else None
    vault = Vault(url, keyring=keyring)
    ship_all(begun(vault, log), log)
    assert shipped_entries(vault) == 20
    log.write(5)
    again = shipper_to(Vault(url, keyring=keyring), log)
    again.begin(True, 0, log.known)
    assert again.shipped_index == 20
    ship_all(again, log)
    assert shipped_entries(vault) == 25


@pytest.mark.parametrize("kind", ["before", "after", "half", "full", "flip"])
def test_any_single_fault_is_made_up_for(url, log, kind):
    """At every operation in turn: an error, then the next attempt; nothing is lost, double or wrongly counted."""
    for number in operations(url, 40):
        place = place_for(url)
        vault = make_faulty(Vault(place), at_operation(number, kind, READS if kind == "flip" else WRITES + READS))
        shipper = shipper_to(vault, log)
        for _ in range(40):
            try:
                shipper.begin(False, 0, log.known)
                ship_all(shipper, log)
                break
            except (VaultUnavailable, UnfitArchive):
                assert shipped_entries(Vault(place)) >= shipper.shipped_index
        assert shipper.shipped_index == shipped_entries(Vault(place)) == 20


@pytest.mark.parametrize("kind", ["kill", "killed"])
def test_a_process_that_ends_anywhere_is_followed_by_one_that_goes_on(url, log, kind):
    for number in operations(url, 60):
        place = place_for(url)
        keyring = Keyring([new_key()])
        vault = make_faulty(Vault(place, keyring=keyring), at_operation(number, kind))
        counted = 0
        try:
            shipper = begun(vault, log)
            while shipped := shipper.ship(log.known):
                counted = shipped.last_index
        except Killed:
            pass
        after = Vault(place, keyring=keyring)
        assert shipped_entries(after) >= counted
        ship_all(begun(after, log), log)
        after.sweep("log")
        assert shipped_entries(after) == 20


@pytest.mark.parametrize("keys", [[], [new_key()]])
def test_packed_rows_are_not_compressed_again(tmp_path, keys):
    vault, log = Vault(f"file://{tmp_path}/vault", keyring=Keyring(keys)), Log()
    rows = pack_rows([b"%06d" % at for at in range(500)], [b'{"id":%d}' % at for at in range(500)])
    log.records = [
        Record(int(Kind.ENTRY), 1, 1, encode([(PUT_ROWS, 7, rows)], 1000)),
        Record(int(Kind.ENTRY), 1, 2, encode([(PUT_ROW, 7, b"a", b'{"text":"%s"}' % (b"x" * 1000))], 2000)),
    ]
    ship_all(begun(vault, log, slice_bytes=10), log)
    assert shipped_entries(vault) == 2
    found = [entry for piece in slices_of(vault) for entry in read_slice(vault, piece).entries]
    assert [(index, data) for index, _, _, data in found] == [(one.log_index, one.payload) for one in log.records]
    packed, plain = (vault.get_stored(piece.name) for piece in slices_of(vault))
    assert not packed[5] & ZSTD and plain[5] & ZSTD and len(plain) < 400


def test_another_history_is_refused(url, log):
    ship_all(begun(Vault(url), log), log)
    younger = Log()
    younger.write(10)
    with pytest.raises(WrongVault):
        begun(Vault(url), younger)
    other = Log()
    other.write(19)
    other.records.append(Record(int(Kind.ENTRY), 2, 20, encode([], 1)))
    with pytest.raises(WrongVault):
        shipper_to(Vault(url), other).begin(True, 0, other.known)
    with pytest.raises(UnfitArchive, match="belongs to the cluster"):
        Shipper(Vault(url), log, "c2", Time().ms, Time()).begin(False, 0, log.known)


def test_a_place_that_lost_its_label_is_not_taken_for_a_new_vault(url, log):
    with pytest.raises(VaultUnavailable, match="mounted"):
        shipper_to(Vault(url), log).begin(True, 0, log.known)


def test_a_hole_is_gone_on_behind(url):
    log = Log(first=50)
    log.write(10)
    shipper = begun(Vault(url), log)
    with pytest.raises(EntriesGone):
        shipper.ship(log.known)
    shipper.skip_to(50)
    ship_all(shipper, log)
    assert shipper.shipped_index == 59


def test_a_mark_replaces_the_one_before(url, log):
    vault = Vault(url)
    shipper = begun(vault, log)
    shipper.mark(20, 5000)
    assert marks_of(vault) == ()
    ship_all(shipper, log)
    for time_ms in (5000, 6000, 7000):
        shipper.mark(20, time_ms)
    assert [(mark.index, mark.time_ms) for mark in marks_of(vault)] == [(20, 7000)]


@pytest.mark.parametrize("kind", [None, "kill", "killed", "before"])
def test_merging_leaves_a_whole_chain_at_every_moment(url, kind):
    log = Log()
    log.write(MERGE_SLICES + 5)
    for number in operations(url, 2 if kind is None else 9):
        place = place_for(url)
        ship_all(begun(Vault(place), log, slice_bytes=10), log)
        time = Time()
        fault = (lambda name: None) if kind is None else at_operation(number, kind, WRITES)
        vault = make_faulty(Vault(place), fault)
        shipper = begun(vault, log, time=time)
        for _ in range(4):
            try:
                shipper.merge()
            except (Killed, VaultUnavailable):
                shipper = begun(Vault(place), log, time=time)
            time.s += REMOVAL_DELAY_S
            assert shipped_entries(Vault(place)) == MERGE_SLICES + 5
        for _ in range(3):
            shipper.merge()
            time.s += REMOVAL_DELAY_S
        assert len(slices_of(Vault(place))) == 1


def test_what_is_merged_is_small_and_follows():
    dice = random.Random(5)
    for _ in range(50):
        pieces, first = [], 1
        for _ in range(dice.randrange(200)):
            last = first + dice.randrange(9)
            pieces.append(SliceName(first, last, first, last, dice.choice((100, 5000, 7 << 20, 30 << 20))))
            first = last + 1 + (dice.random() < 0.02)
        chosen = slices_to_merge(pieces)
        for before, after in pairwise(chosen):
            assert after.first_index == before.last_index + 1
        if chosen:
            assert len(chosen) > 1
            assert sum(piece.stored_bytes for piece in chosen) <= 16 << 20
            assert merged_name(chosen).last_index == chosen[-1].last_index
