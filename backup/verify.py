"""Verifies a vault: are the images and the log all there, whole, and do they come back as the rows they were?

    manifest   every manifest opens, every block and slice it needs is listed with its size, the log has no hole
    files      and every object is read, its hash and its content checked (or the k-th of n parts of them)
    rows       and images are rebuilt; those that follow another are also made from it and the log, and compared

One rule: a problem is a sentence in the report; only a vault that cannot be asked raises.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from backup.capture import read_block
from backup.manifest import Block, ImageManifest, SliceName, TableImage
from backup.plan import Stop, plan_restore
from backup.rebuild import rebuild
from backup.sealing import content_hash
from backup.shelf import IMAGES, LOG, Shelf, look, read_slice
from backup.shipping import covered_slices
from backup.vault import Vault, VaultUnavailable
from model.errors import DiskFull, RewindError, UnfitArchive
from model.packed_rows import plain_rows
from storage.image import Image
from storage.rows import HASH_MODULUS, sum_of_digests

MANIFEST: Final = "manifest"
FILES: Final = "files"
ROWS: Final = "rows"
DEPTHS: Final = (MANIFEST, FILES, ROWS)
READERS: Final = 3
MOST_PROBLEMS: Final = 1000
SPARE_BYTES: Final = 256 << 20

Progress = Callable[[str, int, int], None]


@dataclass(slots=True)
class Report:
    """What was looked at, and what is wrong with it."""

    depth: str
    images: int = 0
    slices: int = 0
    objects: int = 0
    bytes: int = 0
    rows: int = 0
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, problem: str) -> None:
        if len(self.problems) < MOST_PROBLEMS:
            self.problems.append(problem)

    def as_plain(self) -> dict[str, Any]:
        return {
            "depth": self.depth,
            "images": self.images,
            "slices": self.slices,
            "objects": self.objects,
            "bytes": self.bytes,
            "rows": self.rows,
            "problems": self.problems,
            "notes": self.notes,
        }


def verify(
    vault: Vault, depth: str, progress: Progress, scratch: Path | None = None, part: tuple[int, int] | None = None
) -> Report:
    """Looks as deep as `depth` says. part: (k, n), the k-th of n parts of the objects. Raises VaultUnavailable.

    scratch: a folder for the depth `rows`; it is made, and gone at the end.
    """
    report = Report(depth)
    shelf = look(vault)
    report.images, report.slices = len(shelf.images), len(shelf.slices)
    for name, why in shelf.damaged:
        report.add(f"{name}: {why}")
    _check_listing(vault, shelf, report)
    if depth in (FILES, ROWS):
        _check_objects(vault, shelf, report, progress, part)
    if depth == ROWS:
        assert scratch is not None, "the depth `rows` needs a scratch folder"
        _check_rows(vault, shelf, report, progress, scratch)
    return report


# -- manifest


def _check_listing(vault: Vault, shelf: Shelf, report: Report) -> None:
    listed = dict(vault.names(IMAGES))
    known = set()
    for image in shelf.images:
        known.add(f"{IMAGES}/{image.image}/manifest")
        for block in _blocks(image):
            known.add(block.name)
            size = listed.get(block.name)
            if size is None:
                report.add(f"{block.name} is missing, which the image {image.image} needs")
            elif size != block.stored_bytes:
                report.add(f"{block.name} has {size} bytes; its manifest says {block.stored_bytes}")
    unfinished = {name.split("/")[1] for name in listed if name not in known} - {image.image for image in shelf.images}
    for image_name in sorted(unfinished):
        report.notes.append(f"the image {image_name} was never finished; `expire` removes it once it is old")
    strange = [name for name, _ in vault.names(LOG) if not any(piece.name == name for piece in shelf.slices)]
    report.notes += [f"{name} is no slice of the log" for name in strange]
    _check_chain(shelf, report)


def _blocks(image: ImageManifest) -> Iterator[Block]:
    for table in image.tables:
        yield from table.blocks


def _check_chain(shelf: Shelf, report: Report) -> None:
    """The log from the oldest whole image on has no hole."""
    whole = [image for image in shelf.images if image.is_whole]
    if not whole:
        return
    have = min(image.log_index for image in whole)
    for piece in sorted(shelf.slices, key=lambda piece: (piece.first_index, -piece.last_index)):
        if piece.last_index <= have:
            continue
        if piece.first_index > have + 1:
            is_bridged = any(have < image.log_index and image.log_index >= piece.first_index - 1 for image in whole)
            text = f"the log lacks the entries {have + 1} to {piece.first_index - 1}"
            later = "; later images begin anew after it" if is_bridged else ""
            report.add(f"{text}: moments in between cannot be restored{later}")
        have = piece.last_index


# -- files


def _check_objects(
    vault: Vault, shelf: Shelf, report: Report, progress: Progress, part: tuple[int, int] | None
) -> None:
    wanted: list[tuple[str, Callable[[], tuple[int, int]]]] = []
    for image in shelf.images:
        for block in _blocks(image):
            wanted.append((block.name, lambda block=block: _read_block(vault, block)))  # type: ignore[misc]
    for piece in shelf.slices:
        wanted.append((piece.name, lambda piece=piece: _read_slice(vault, piece)))  # type: ignore[misc]
    chosen = [(name, read) for name, read in wanted if part is None or is_in_part(name, *part)]

    def check(item: tuple[str, Callable[[], tuple[int, int]]]) -> tuple[str, tuple[int, int] | RewindError]:
        name, read = item
        try:
            return name, read()
        except VaultUnavailable as error:
            if vault.exists(name):
                raise
            return name, error
        except UnfitArchive as error:
            return name, error

    with ThreadPoolExecutor(READERS, thread_name_prefix="vault") as pool:
        for name, outcome in pool.map(check, chosen):
            report.objects += 1
            if isinstance(outcome, RewindError):
                report.add(f"{name}: {outcome}")
            else:
                report.rows += outcome[0]
                report.bytes += outcome[1]
            progress("files", report.objects, len(chosen))


def is_in_part(name: str, number: int, parts: int) -> bool:
    """Whether an object belongs to the k-th of n parts: the same at every run, whatever else there is."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big") % parts == number - 1


def _read_block(vault: Vault, block: Block) -> tuple[int, int]:
    _, rows = read_block(vault, block)
    return len(rows), block.stored_bytes


def _read_slice(vault: Vault, piece: SliceName) -> tuple[int, int]:
    read_slice(vault, piece)
    return 0, piece.stored_bytes


# -- rows


def _check_rows(vault: Vault, shelf: Shelf, report: Report, progress: Progress, scratch: Path) -> None:
    """Rebuilds every whole image; where the log leads from one to the next, the next is made that way."""
    whole = [image for image in shelf.images if image.is_whole]
    inside = covered_slices(shelf.slices)
    slices = [piece for piece in shelf.slices if piece.name not in inside]
    for at, image in enumerate(whole):
        base = whole[at - 1] if at else image
        try:
            plan = plan_restore([base], slices, Stop(index=image.log_index))
        except RewindError:
            plan = plan_restore([image], [], Stop(index=image.log_index))  # a hole, which was reported
        try:
            rebuilt_rows(vault, plan, image, scratch, progress, report)
        except VaultUnavailable:
            raise
        except RewindError as error:
            report.add(f"the image {image.image} does not come back from {plan.image.image}: {error}")


def rebuilt_rows(
    vault: Vault, plan: Any, image: ImageManifest, scratch: Path, progress: Progress, report: Report
) -> None:
    """Rebuilds a plan in the scratch folder and compares every table with what `image` says of it."""
    need_room(scratch, plan.image.row_bytes)
    scratch.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        rebuild(vault, plan, scratch, progress)
        with Image(scratch) as found:
            for problem in compare(found, image):
                report.add(f"the image {image.image} from {plan.image.image}: {problem}")
            report.rows += sum(found.counts.values())
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def compare(found: Image, image: ImageManifest) -> Iterator[str]:
    """How the rows in a rebuilt folder differ from what a manifest says."""
    if found.applied_index != image.log_index:
        yield f"it is of log index {found.applied_index}, not {image.log_index}"
    tables = {table.table_id: table for table in image.tables}
    for table_id in sorted({*tables, *found.catalog.tables}):
        table = tables.get(table_id)
        if table is None or table_id not in found.catalog.tables:
            yield f"table number {table_id} is in one and not in the other"
            continue
        count, is_same = _found_as(found, table)
        if count != table.rows or not is_same:
            yield f"table {table.database}.{table.name} has {count} rows for {table.rows}, or other contents"


def _found_as(found: Image, table: TableImage) -> tuple[int, bool]:
    """How many rows a table has in a rebuilt folder, and whether they are those that the image was made of."""
    parts = found.blocks(table.table_id)
    if table.row_hash:
        total = count = 0
        for part in parts:
            total += sum_of_digests(part.keys, part.rows)
            count += len(part.rows)
        return count, f"{total % HASH_MODULUS:064x}" == table.row_hash
    keys: list[bytes] = []
    rows: list[bytes] = []
    count, is_same = 0, True
    for block in table.blocks:
        while len(rows) < block.rows and (following := next(parts, None)) is not None:
            keys += following.keys
            rows += following.rows
        plain = plain_rows(keys[: block.rows], rows[: block.rows])
        is_same = is_same and content_hash(plain) == block.content_hash
        count += min(block.rows, len(rows))
        del keys[: block.rows], rows[: block.rows]
    return count + len(rows) + sum(len(part.rows) for part in parts), is_same


def need_room(folder: Path, row_bytes: int) -> None:
    """Raises DiskFull unless so many bytes of rows can be rebuilt in a folder, with some room left for others."""
    place = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free = shutil.disk_usage(place).free
    needed = row_bytes + row_bytes // 4 + SPARE_BYTES
    if free < needed:
        raise DiskFull(
            f"{place} has {free >> 20} MiB free; rebuilding a backup there needs about {needed >> 20} MiB.",
            "Make space, or verify on another machine with `rewinddb verify --vault URL`.",
        )
