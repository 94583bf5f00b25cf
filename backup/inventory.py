"""A vault's contents for people and scripts: images, moments that can be restored, sizes, what is damaged."""

from __future__ import annotations

from typing import Any

from backup.manifest import as_plain
from backup.plan import restorable_ranges
from backup.shelf import Shelf, look
from backup.vault import Vault


def inventory(vault: Vault) -> dict[str, Any]:
    """Plain JSON. Times in milliseconds. Raises VaultUnavailable."""
    return describe(look(vault), vault)


def describe(shelf: Shelf, vault: Vault) -> dict[str, Any]:
    """As `inventory`, of a look that was taken already."""
    label = vault.label() or {}
    log_bytes = sum(piece.stored_bytes for piece in shelf.slices)
    return {
        "url": vault.url,
        "cluster_id": label.get("cluster_id"),
        "encrypted": vault.keyring.encrypts,
        "images": [{**as_plain(image), "held": image.image in shelf.held} for image in shelf.images],
        "ranges": [
            {
                "first_index": found.first_index,
                "last_index": found.last_index,
                "first_ms": found.first_ms,
                "last_ms": _quiet_until(shelf, found.last_index, found.last_ms),
            }
            for found in restorable_ranges(shelf.images, shelf.slices)
        ],
        "log": {
            "slices": len(shelf.slices),
            "bytes": log_bytes,
            "first_index": min((piece.first_index for piece in shelf.slices), default=None),
            "last_index": max((piece.last_index for piece in shelf.slices), default=None),
        },
        "stored_bytes": log_bytes + sum(image.stored_bytes for image in shelf.images),
        "damaged": [{"name": name, "why": why} for name, why in shelf.damaged],
    }


def _quiet_until(shelf: Shelf, last_index: int, last_ms: int) -> int:
    """Until when it is known that nothing followed an entry."""
    return max([last_ms, *(mark.time_ms for mark in shelf.marks if mark.index == last_index)])
