"""Ships the log to one vault, slice by slice, and keeps the slices few and large.

One rule: what is counted as shipped was read back from the vault. At any moment the slices in the vault are a chain
that a restore can follow; merging writes the large slice, verifies it, and only later removes the small ones.

    begin ──► ship, ship, ship ...            (as the log grows)
              mark                            (when it does not: "until this time nothing happened")
              merge                           (now and then)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from backup.access import enter
from backup.log_tail import Known, LogTail
from backup.manifest import LogSlice, SliceName, decode_slice, encode_slice
from backup.plan import Mark
from backup.sealing import seal, unseal
from backup.shelf import mark_name, marks_of, read_slice, slices_of
from backup.vault import Vault, VaultUnavailable
from model.effect import is_packed, time_of
from model.errors import UnfitArchive
from wal.record import FIRST_ENTRY_KIND, Record

SLICE_BYTES: Final = 4 << 20
MERGED_BYTES: Final = 16 << 20
MERGE_SLICES: Final = 60  # small slices in a row that are worth merging
MERGE_AT_MOST: Final = 600
REMOVAL_DELAY_S: Final = 600.0  # how long a restore that began before a merge still finds the small slices


class WrongVault(UnfitArchive):
    """The vault holds another history than this server's."""


@dataclass(frozen=True, slots=True)
class Shipped:
    """One slice that is in the vault and was read back."""

    last_index: int
    last_ms: int
    stored_bytes: int


class Shipper:
    """One vault's share of the log. All calls block. Raises VaultUnavailable: call again, nothing is lost or double.

    clock_ms: wall clock. seconds: monotonic clock.
    """

    def __init__(
        self,
        vault: Vault,
        tail: LogTail,
        cluster_id: str,
        clock_ms: Callable[[], int],
        seconds: Callable[[], float],
        slice_bytes: int = SLICE_BYTES,
    ) -> None:
        self._vault = vault
        self._tail = tail
        self._cluster_id = cluster_id
        self._clock_ms = clock_ms
        self._seconds = seconds
        self._slice_bytes = slice_bytes
        self._under_way: tuple[SliceName, bytes] | None = None  # sealed, and maybe in the vault already
        self._mark: Mark | None = None
        self._covered: dict[str, float] = {}  # small slices in a merged one -> when that was seen first
        self.shipped_index = 0
        self.shipped_ms = 0

    def begin(self, is_known: bool, start_after: int, known: Known) -> None:
        """Finds out what the vault has. A new vault is claimed, and ships what follows entry `start_after`.

        is_known: the vault was claimed before. Raises WrongVault.
        """
        enter(self._vault, self._cluster_id, is_known, self._clock_ms())
        slices = slices_of(self._vault)
        if not slices:
            self.shipped_index = start_after
            return
        last = max(slices, key=lambda piece: (piece.last_index, piece.stored_bytes))
        self._check_history(last, known)
        self.shipped_index, self.shipped_ms = last.last_index, last.last_ms
        self._mark = max(marks_of(self._vault), key=lambda mark: (mark.index, mark.time_ms), default=None)

    def _check_history(self, last: SliceName, known: Known) -> None:
        """The last entry in the vault has to be one of this server's log."""
        part = read_slice(self._vault, last)
        index, raft_term, _, data = part.entries[-1]
        same = part.cluster_id == self._cluster_id and index <= known.last_index
        if same and index >= known.first_index:
            mine = self._tail.read(index, known._replace(last_index=index), 1)
            same = (mine[0].raft_term, mine[0].payload) == (raft_term, data)
        if not same:
            raise WrongVault(
                f"The vault {self._vault.url} holds entry {index} of the log, which this server does not have: "
                "the server's data are older than the vault, or of another history.",
                "Give this server a new vault, or restore from this one into a new folder.",
            )

    def ship(self, known: Known) -> Shipped | None:
        """Ships one more slice of what is committed; None if there is nothing.

        Raises EntriesGone when the log was released before it got here; `skip_to` goes on after the hole.
        """
        if self._under_way is None:
            records = self._tail.read(self.shipped_index + 1, known, self._slice_bytes)
            if not records:
                return None
            self._under_way = self._sealed(records)
        piece, stored = self._under_way
        self._store(piece, stored)
        self._under_way = None
        self.shipped_index, self.shipped_ms = piece.last_index, piece.last_ms
        return Shipped(piece.last_index, piece.last_ms, len(stored))

    def _store(self, piece: SliceName, stored: bytes) -> None:
        """Stores a slice and reads it back. The same bytes at each attempt: one that failed may have stored them."""
        try:
            self._vault.put_stored(piece.name, stored)
        except UnfitArchive:
            # An earlier process may have stored the same entries, sealed anew: then they are there.
            there = read_slice(self._vault, piece)
            mine = decode_slice(unseal(piece.name, stored, self._vault.keyring), piece)
            if (there.cluster_id, there.entries) != (mine.cluster_id, mine.entries):
                raise
            return
        try:
            self._vault.read_back(piece.name, stored)
        except UnfitArchive as error:
            self._vault.delete(piece.name)
            raise VaultUnavailable(f"{error} It is removed, to be written again.") from error

    def skip_to(self, first_index: int) -> None:
        """Goes on with that entry: what lies before it is gone, and the vault needs a new image."""
        self._under_way = None
        self.shipped_index = max(self.shipped_index, first_index - 1)

    def _sealed(self, records: Sequence[Record]) -> tuple[SliceName, bytes]:
        times = [time_ms for record in records if (time_ms := _time_of(record)) is not None]
        first_ms = times[0] if times else self.shipped_ms
        piece = SliceName(records[0].log_index, records[-1].log_index, first_ms, max(times, default=self.shipped_ms))
        entries = [(r.log_index, r.raft_term, r.kind - FIRST_ENTRY_KIND, r.payload) for r in records]
        text = encode_slice(LogSlice(self._cluster_id, entries))
        return piece, seal(piece.name, text, self._vault.keyring, self._level_for(records)).stored

    def _level_for(self, records: Sequence[Record]) -> int:
        """Slices that are mostly packed rows are not compressed again."""
        packed = sum(len(record.payload) for record in records if is_packed(record.payload))
        return 0 if 2 * packed > sum(len(record.payload) for record in records) else self._vault.level

    def mark(self, index: int, time_ms: int) -> None:
        """Notes that entry `index` was the log's last one at that time; replaces the mark before."""
        if index != self.shipped_index or not index:
            return
        mark, before = Mark(index, time_ms), self._mark
        if before == mark:
            return
        self._vault.put(mark_name(mark), b"")
        self._mark = mark
        if before is not None:
            self._vault.delete(mark_name(before))

    # -- merging

    def merge(self) -> SliceName | None:
        """One step towards few and large slices; the merged slice, or None if there is nothing to merge."""
        slices = slices_of(self._vault)
        self._remove_covered(slices)
        chosen = slices_to_merge(slices)
        if not chosen:
            return None
        parts = [read_slice(self._vault, piece) for piece in chosen]
        if any(part.cluster_id != self._cluster_id for part in parts):
            raise WrongVault(f"The vault {self._vault.url} holds slices of another cluster's log.")
        merged = merged_name(chosen)
        entries = [entry for part in parts for entry in part.entries]
        text = encode_slice(LogSlice(self._cluster_id, entries))
        sha256, _ = self._vault.put(merged.name, text)
        if self._vault.get(merged.name, sha256) != text:
            raise UnfitArchive(f"The merged slice {merged.name} does not read back as it was written.")
        return merged

    def _remove_covered(self, slices: Sequence[SliceName]) -> None:
        """Removes small slices that have been inside a larger one for long enough, after a look at the larger one."""
        now_s = self._seconds()
        covered = covered_slices(slices)
        self._covered = {name: self._covered.get(name, now_s) for name in covered}
        due = [name for name, since_s in self._covered.items() if now_s - since_s >= REMOVAL_DELAY_S]
        for cover in {covered[name] for name in due}:
            read_slice(self._vault, cover)
        for name in due:
            self._vault.delete(name)
            del self._covered[name]


def _time_of(record: Record) -> int | None:
    is_batch = record.kind == FIRST_ENTRY_KIND and record.payload
    return time_of(record.payload) if is_batch else None


def merged_name(pieces: Sequence[SliceName]) -> SliceName:
    """The name of the slice that holds what these hold, which follow each other."""
    times = (pieces[0].first_ms, max(piece.last_ms for piece in pieces))
    return SliceName(pieces[0].first_index, pieces[-1].last_index, *times)


def covered_slices(slices: Iterable[SliceName]) -> dict[str, SliceName]:
    """Slices that lie wholly inside another one: name -> the other."""
    covered: dict[str, SliceName] = {}
    cover: SliceName | None = None
    for piece in sorted(slices, key=lambda piece: (piece.first_index, -piece.last_index)):
        if cover is not None and piece.last_index <= cover.last_index:
            covered[piece.name] = cover
        else:
            cover = piece
    return covered


def slices_to_merge(slices: Sequence[SliceName]) -> list[SliceName]:
    """The first run of small slices that follow each other without a gap and are worth one slice; else none."""
    inside = covered_slices(slices)
    run: list[SliceName] = []
    size = 0
    for piece in slices:
        if piece.name in inside:
            continue
        is_next = not run or piece.first_index == run[-1].last_index + 1
        fits = size + piece.stored_bytes <= MERGED_BYTES and len(run) < MERGE_AT_MOST
        if is_next and fits and piece.stored_bytes < MERGED_BYTES // 2:
            run.append(piece)
            size += piece.stored_bytes
            continue
        if _is_worth_it(run, size, is_closed=is_next):
            return run
        run, size = ([piece], piece.stored_bytes) if piece.stored_bytes < MERGED_BYTES // 2 else ([], 0)
    return run if _is_worth_it(run, size, is_closed=False) else []


def _is_worth_it(run: Sequence[SliceName], size: int, is_closed: bool) -> bool:
    return len(run) >= MERGE_SLICES or (is_closed and len(run) > 1 and size >= MERGED_BYTES // 2)
