"""Images that must stay, whatever a retention says. One rule: a hold is an object of its own, put or taken at once."""

from __future__ import annotations

from backup.shelf import HOLDS, IMAGES
from backup.vault import Vault
from model.errors import UnfitArchive


def hold(vault: Vault, image: str) -> None:
    """Holds an image; the log after it is not held with it. Raises UnfitArchive if it is not there."""
    if not vault.exists(f"{IMAGES}/{image}/manifest"):
        raise UnfitArchive(f"There is no image {image} in {vault.url}.")
    if not vault.exists(f"{HOLDS}/{image}"):
        vault.put(f"{HOLDS}/{image}", b"")


def release(vault: Vault, image: str) -> None:
    """Ends a hold; it is no error if there is none."""
    vault.delete(f"{HOLDS}/{image}")
