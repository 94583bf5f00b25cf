"""What a vault holds: its images, its slices of the log, its holds. One rule: read only; nothing is guessed."""

from __future__ import annotations

from dataclasses import dataclass

from backup.manifest import ImageManifest, LogSlice, SliceName, decode, decode_slice, parse_slice_name
from backup.plan import Mark
from backup.sealing import UnknownKey, digest, unseal
from backup.vault import NotInVault, Vault
from model.errors import UnfitArchive

IMAGES = "images"
LOG = "log"
HOLDS = "holds"
MARKS = "marks"


@dataclass(frozen=True, slots=True)
class Shelf:
    """The contents of a vault at one look. damaged: manifests that could not be read, with the reason."""

    images: tuple[ImageManifest, ...]
    slices: tuple[SliceName, ...]
    held: frozenset[str]
    marks: tuple[Mark, ...]
    damaged: tuple[tuple[str, str], ...]


def look(vault: Vault) -> Shelf:
    """Reads all manifests and lists the log. Raises VaultUnavailable; UnknownKey if there is no key for any image."""
    images, damaged = [], []
    locked: UnknownKey | None = None
    for name, _ in vault.names(IMAGES):
        if name.endswith("/manifest"):
            try:
                images.append(read_manifest(vault, name.split("/")[1]))
            except NotInVault:
                continue  # deleted since it was listed
            except UnfitArchive as error:
                damaged.append((name, str(error)))
                locked = error if isinstance(error, UnknownKey) else locked
    if locked is not None and not images:
        raise locked
    return Shelf(
        tuple(sorted(images, key=lambda image: (image.log_index, image.image))),
        slices_of(vault),
        frozenset(name.split("/")[1] for name, _ in vault.names(HOLDS)),
        marks_of(vault),
        tuple(damaged),
    )


def marks_of(vault: Vault) -> tuple[Mark, ...]:
    """The marks in a vault: objects named marks/<index>-<time>, both in hex."""
    found = []
    for name, _ in vault.names(MARKS):
        index, _, time_ms = name.removeprefix(f"{MARKS}/").partition("-")
        try:
            found.append(Mark(int(index, 16), int(time_ms, 16)))
        except ValueError:
            continue  # not a mark: a stranger's file tells nothing about the log
    return tuple(found)


def mark_name(mark: Mark) -> str:
    return f"{MARKS}/{mark.index:016x}-{mark.time_ms:012x}"


def slices_of(vault: Vault) -> tuple[SliceName, ...]:
    """The slices of the log in a vault, in order."""
    found = (parse_slice_name(name, size) for name, size in vault.names(LOG))
    return tuple(sorted((piece for piece in found if piece is not None), key=lambda piece: piece.first_index))


def read_manifest(vault: Vault, image: str) -> ImageManifest:
    name = f"{IMAGES}/{image}/manifest"
    manifest = decode(vault.get(name), name)
    if manifest.image != image:
        raise UnfitArchive(f"The manifest {name} is of the image {manifest.image}.")
    return manifest


def is_stored_as(vault: Vault, manifest: ImageManifest, sha256: str) -> bool:
    """Whether a manifest is the one with that hash in a vault, byte for byte."""
    name = f"{IMAGES}/{manifest.image}/manifest"
    stored = vault.get_stored(name)
    return digest(stored) == sha256 and decode(unseal(name, stored, vault.keyring), name) == manifest


def read_slice(vault: Vault, piece: SliceName) -> LogSlice:
    return decode_slice(vault.get(piece.name), piece)
