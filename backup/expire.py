"""Deletes from a vault what its retention lets go of.

One rule: a manifest goes before its blocks, so an image is listed whole or not at all; what an interrupted deletion
or backup left behind is found by the next run.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from backup.plan_expiry import DAY_MS, Expiry, Policy, Promised, check_deletion, plan_expiry
from backup.sealing import UnknownKey
from backup.shelf import HOLDS, IMAGES, Shelf, look, read_manifest
from backup.vault import Vault
from model.errors import UnfitArchive

LEFT_OVER_MS: Final = 2 * DAY_MS  # an image without a manifest that is older than that is nobody's any more
_STAMP: Final = re.compile(r"(\d{8}T\d{6}Z)-")


@dataclass(frozen=True, slots=True)
class Expired:
    """What was deleted, or would be. leftovers: images that were never finished."""

    expiry: Expiry
    leftovers: tuple[str, ...]


def expire(vault: Vault, policy: Policy, now_ms: int, dry_run: bool = False) -> Expired:
    """Does what the policy says. Raises VaultUnavailable, or UnfitArchive while a manifest is damaged."""
    shelf = look(vault)
    if shelf.damaged:
        name, why = shelf.damaged[0]
        raise UnfitArchive(
            f"Nothing is deleted from {vault.url} while it has a damaged manifest: {name} ({why}).",
            "Look at it with `rewinddb verify`; delete the image by name if it is not needed.",
        )
    expiry = plan_expiry(shelf.images, shelf.slices, shelf.held, policy, now_ms)
    leftovers = _leftovers(vault, shelf, now_ms)
    if not dry_run:
        for image in (*expiry.images, *leftovers):
            _delete_image(vault, image)
        for piece in expiry.slices:
            vault.delete(piece.name)
    return Expired(expiry, leftovers)


def delete_images(vault: Vault, chosen: Collection[str], policy: Policy, now_ms: int, dry_run: bool = False) -> None:
    """Deletes images by request. Raises Promised for those that a retention or a hold covers, and those not there.

    An image whose manifest is damaged cannot be restored, so no promise covers it. One that there is no key for may
    be as good as any: UnknownKey.
    """
    shelf = look(vault)
    damaged = {name.split("/")[1] for name, _ in shelf.damaged}.intersection(chosen)
    for image in damaged:
        if image in shelf.held:
            raise Promised(f"The image {image} cannot be deleted: it is held.", "Release the hold, if it is to go.")
        _check_damaged(vault, image)
    check_deletion([image for image in chosen if image not in damaged], shelf.images, shelf.held, policy, now_ms)
    for image in () if dry_run else chosen:
        _delete_image(vault, image)


def _check_damaged(vault: Vault, image: str) -> None:
    """Raises UnknownKey for a manifest that only cannot be opened here."""
    try:
        read_manifest(vault, image)
    except UnknownKey:
        raise
    except UnfitArchive:
        return


def _leftovers(vault: Vault, shelf: Shelf, now_ms: int) -> tuple[str, ...]:
    """Images that have blocks but no manifest, and whose backup cannot be running any more."""
    whole = {image.image for image in shelf.images}
    begun = {name.split("/")[1] for name, _ in vault.names(IMAGES)} - whole
    return tuple(sorted(image for image in begun if _time_of(image) < now_ms - LEFT_OVER_MS))


def _time_of(image: str) -> float:
    """When an image was begun, as its name tells; far in the future where it tells nothing, so that it stays."""
    stamp = _STAMP.match(image)
    if not stamp:
        return float("inf")
    return datetime.strptime(stamp[1], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp() * 1000


def _delete_image(vault: Vault, image: str) -> None:
    vault.delete(f"{IMAGES}/{image}/manifest")
    names: Sequence[tuple[str, int]] = vault.names(f"{IMAGES}/{image}")
    for name, _ in names:
        vault.delete(name)
    vault.sweep(f"{IMAGES}/{image}")
    vault.delete(f"{HOLDS}/{image}")
