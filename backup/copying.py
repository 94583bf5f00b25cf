"""Copies from one vault to another: geographic copies, moves to another store.

One rule: objects are copied as they are stored, sealed and verified; an image's manifest comes last. Both vaults
therefore have the same keys.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from backup.shelf import HOLDS, IMAGES, LOG, MARKS, look
from backup.vault import LABEL, NotInVault, Vault
from model.errors import UnfitArchive

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Copied:
    """What was copied just now; what was there already is not counted."""

    images: int
    objects: int
    bytes: int


def copy_vault(source: Vault, target: Vault, progress: Progress, images: Collection[str] | None = None) -> Copied:
    """Copies what the target lacks: all images or those named, and the log. Raises UnfitArchive for what is damaged."""
    label = source.label()
    if label is None:
        raise UnfitArchive(f"{source.url} holds no {LABEL}: it is not a vault.")
    target.claim(label["cluster_id"], label["created_ms"])
    shelf = look(source)
    there = {name for folder in (IMAGES, LOG, MARKS, HOLDS) for name, _ in target.names(folder)}
    chosen = [image for image in shelf.images if images is None or image.image in images]
    chosen = [image for image in chosen if f"{IMAGES}/{image.image}/manifest" not in there]
    names = [*(piece.name for piece in shelf.slices), *(name for name, _ in source.names(MARKS))]
    names += [f"{HOLDS}/{image}" for image in shelf.held]
    names = [name for name in names if name not in there]
    blocks = [block for image in chosen for table in image.tables for block in table.blocks]
    total = sum(block.name not in there for block in blocks) + len(chosen) + len(names)
    objects = size = 0

    def copy(name: str, sha256: str | None = None) -> None:
        nonlocal objects, size
        stored = source.get_stored(name, sha256)
        content = source.get(name) if sha256 is None else b""  # opened, so that damage is not copied
        try:
            target.put_stored(name, stored)
        except UnfitArchive:
            if sha256 is None and target.get(name) == content:
                return  # the target's own shipping was faster, and sealed it in its own way
            raise
        target.read_back(name, stored)
        objects += 1
        size += len(stored)
        progress("objects", objects, total)

    for image in chosen:
        for table in image.tables:
            for block in table.blocks:
                if block.name not in there:
                    copy(block.name, block.sha256)
        copy(f"{IMAGES}/{image.image}/manifest")
    for name in names:
        try:
            copy(name)
        except NotInVault:
            if name.startswith(f"{LOG}/"):
                raise
            # a mark that a newer one has replaced, or a hold that has ended, since they were listed
    return Copied(len(chosen), objects, size)
