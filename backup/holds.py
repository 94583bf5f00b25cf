"""Images that must stay, whatever a retention says. One rule: a hold is an object of its own, put or taken at once."""

from __future__ import annotations

from backup.shelf import HOLDS, IMAGES
from backup.vault import Vault
from model.errors import UnfitArchive


def hold(vault: Vault, image: str) -> None:
    """Holds an image; the log after it is not held with it. Raises UnfitArchive if it is not there."""
    if not is_there(vault, image):
        raise UnfitArchive(f"There is no image {image} in {vault.url}.")
    if not vault.exists(f"{HOLDS}/{image}"):
        vault.put(f"{HOLDS}/{image}", b"")


def is_there(vault: Vault, image: str) -> bool:
    """Whether a vault has that image."""
    return vault.exists(f"{IMAGES}/{image}/manifest")


def release(vault: Vault, image: str) -> None:
    """Ends a hold; it is no error if there is none. Raises UnfitArchive if there is no such image."""
    if not is_there(vault, image):
        raise UnfitArchive(f"There is no image {image} in {vault.url}.")
    vault.delete(f"{HOLDS}/{image}")
