"""A vault: a place that keeps backups, reached through fsspec: a folder, S3, Google Cloud, Azure, SFTP and others.

One rule: an object appears under its final name only when it is complete, is written once, and is never changed.
Names are relative, with "/"; the layout below the vault's folder:

    vault.json                                    which cluster this is, in clear
    images/<image>/manifest                       written last: without it there is no image
    images/<image>/<table uuid>/<number>          blocks of rows
    log/<first index>-<last index>                slices of the log
    marks/<index>-<time>                          at that time, that was the last entry of the log
    holds/<image>                                 images that must not expire
    checks/<time>-<what>                          results of verifications and drills
"""

from __future__ import annotations

import json
import os
import re
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

from backup.sealing import DEFAULT_LEVEL, Keyring, digest, seal, unseal
from model.errors import BadSetting, RewindError, UnfitArchive

FORMAT: Final = 1
LABEL: Final = "vault.json"
NAME: Final = re.compile(r"[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*\Z")
# Stores in which an object is there whole or not at all, so that no renaming is needed.
CACHED_LISTINGS: Final = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "az"})
ATOMIC_PUTS: Final = CACHED_LISTINGS | {"memory"}


class VaultUnavailable(RewindError):
    """The place cannot be reached or refuses; the operation may be tried again."""


class NotInVault(VaultUnavailable):
    """The place answers that it does not have the object."""


T = TypeVar("T")
PAUSES_S: Final = (0.2, 1.0, 3.0)  # between attempts of one read or write


class Vault:
    """One vault. All calls block: they run in child processes or threads, never on the reactor's thread."""

    def __init__(
        self,
        url: str,
        options: Mapping[str, Any] | None = None,
        keyring: Keyring | None = None,
        level: int = DEFAULT_LEVEL,
        pauses_s: Sequence[float] = (),
    ) -> None:
        """pauses_s: between attempts of reading or writing one object; none: one attempt (see PAUSES_S)."""
        check_url(url)
        self.url = url
        self._pauses_s = pauses_s
        self.keyring = keyring if keyring is not None else Keyring()
        self.level = level
        # What these stores' clients keep of listings would show objects that are gone, and hide new ones.
        fresh = {"use_listings_cache": False} if urlsplit(url).scheme in CACHED_LISTINGS else {}
        with _Doing(self, "open"):
            from fsspec.core import url_to_fs  # type: ignore[import-untyped]  # takes 50 ms: not where no vault is opened

            self._fs, root = url_to_fs(url, **{**fresh, **(options or {})})
        self._root = root.rstrip("/")
        protocol = self._fs.protocol
        self._atomic = bool(ATOMIC_PUTS & set([protocol] if isinstance(protocol, str) else protocol))

    # -- objects

    def put(self, name: str, content: bytes, threads: int = 0) -> tuple[str, int]:
        """Seals and stores an object; gives the hash and size of what is stored. The same name twice is refused."""
        sealed = seal(name, content, self.keyring, self.level, threads)
        self.put_stored(name, sealed.stored)
        return sealed.sha256, len(sealed.stored)

    def put_stored(self, name: str, stored: bytes, is_settled: bool = True) -> None:
        """Stores bytes that are sealed already. Not settled: its name may be lost with the power until `settle`."""
        self._insist(lambda: self._put_once(name, stored, is_settled))

    def settle(self, folder: str) -> None:
        """From now on no power loss takes away the names of objects in a folder."""
        with _Doing(self, f"settle {folder}"):
            self._sync_local(self._path(folder))

    def read_back(self, name: str, stored: bytes) -> None:
        """Reads an object that was just stored. Raises UnfitArchive if it is not what it was."""
        if self.get_stored(name) != stored:
            raise UnfitArchive(
                f"{name} in {self.url} does not read back as it was written: the vault is not to be used."
            )

    def _put_once(self, name: str, stored: bytes, is_settled: bool) -> None:
        path = self._path(name)
        with _Doing(self, f"write {name}"):
            if self._fs.exists(path):
                if self._fs.cat_file(path) == stored:
                    return  # an interrupted upload is being repeated
                raise UnfitArchive(f"{name} exists in {self.url} with other content; objects are written once.")
            self._write(path, stored, is_settled)

    def _write(self, path: str, stored: bytes, is_settled: bool = True) -> None:
        """Stores bytes whole or not at all."""
        if self._atomic:
            self._fs.pipe_file(path, stored)
            return
        folder = path.rpartition("/")[0]
        self._fs.makedirs(folder, exist_ok=True)
        part = f"{path}.part-{secrets.token_hex(4)}"
        self._fs.pipe_file(part, stored)
        self._sync_local(part)
        self._fs.mv(part, path)
        if is_settled:
            self._sync_local(folder)

    def get(self, name: str, expected: str | None = None) -> bytes:
        """The content of an object; raises UnfitArchive if it is damaged or not the one with the hash `expected`."""
        return unseal(name, self.get_stored(name, expected), self.keyring, is_known=expected is not None)

    def get_stored(self, name: str, expected: str | None = None) -> bytes:
        """The stored bytes of an object. Raises NotInVault if there is none."""
        stored = self._insist(lambda: self._get_once(name))
        if expected is not None and digest(stored) != expected:
            raise UnfitArchive(f"{name} in {self.url} does not have the hash that its manifest says: it is damaged.")
        return stored

    def _get_once(self, name: str) -> bytes:
        with _Doing(self, f"read {name}"):
            stored: bytes = self._fs.cat_file(self._path(name))
        return stored

    def exists(self, name: str) -> bool:
        with _Doing(self, f"look for {name}"):
            return bool(self._fs.exists(self._path(name)))

    def delete(self, name: str) -> None:
        """Removes an object; it is no error if it is not there."""
        with _Doing(self, f"delete {name}"):
            if self._fs.exists(self._path(name)):
                self._fs.rm_file(self._path(name))

    def names(self, folder: str) -> list[tuple[str, int]]:
        """(name, size) of all objects below a folder, sorted; unfinished uploads are left out."""
        with _Doing(self, f"list {folder}"):
            self._fs.invalidate_cache()
            path = self._path(folder)
            if not self._fs.exists(path):
                return []
            found = self._fs.find(path, detail=True)
        prefix = len(self._root) + 1
        entries = [(path[prefix:], int(detail.get("size") or 0)) for path, detail in found.items()]
        return sorted((name, size) for name, size in entries if ".part-" not in name)

    def sweep(self, folder: str) -> int:
        """Removes what interrupted uploads left behind; gives how many files."""
        with _Doing(self, f"sweep {folder}"):
            self._fs.invalidate_cache()
            path = self._path(folder)
            left = [found for found in self._fs.find(path) if ".part-" in found] if self._fs.exists(path) else []
            for found in left:
                self._fs.rm_file(found)
        return len(left)

    # -- the label

    def label(self) -> dict[str, Any] | None:
        """What the vault says of itself, or None if it is new."""
        if not self.exists(LABEL):
            return None
        with _Doing(self, f"read {LABEL}"):
            raw = self._fs.cat_file(self._path(LABEL))
        try:
            label = json.loads(raw)
            if label["format"] != FORMAT:
                raise UnfitArchive(f"{self.url} has vault format {label['format']}; this version reads {FORMAT}.")
        except (ValueError, KeyError, TypeError) as error:
            raise UnfitArchive(f"{LABEL} in {self.url} is damaged.") from error
        return dict(label)

    def claim(self, cluster_id: str, time_ms: int) -> None:
        """Makes a new vault this cluster's; raises UnfitArchive if it is another's.

        Its label gets an id, by which servers can tell whether they see the same place.
        """
        label = self.label()
        if label is not None:
            if label["cluster_id"] != cluster_id:
                raise UnfitArchive(
                    f"The vault {self.url} belongs to the cluster {label['cluster_id']}, not to {cluster_id}.",
                    "Every cluster needs a vault of its own: choose another folder.",
                )
            return
        new = {"format": FORMAT, "id": secrets.token_hex(8), "cluster_id": cluster_id, "created_ms": time_ms}
        text = json.dumps(new).encode()
        with _Doing(self, f"write {LABEL}"):
            self._write(self._path(LABEL), text)

    # -- inside

    def _insist(self, call: Callable[[], T]) -> T:
        """Tries again after each pause while the vault is unavailable."""
        for pause_s in self._pauses_s:
            try:
                return call()
            except NotInVault:
                raise
            except VaultUnavailable:
                time.sleep(pause_s)
        return call()

    def _path(self, name: str) -> str:
        if not NAME.match(name) or ".." in name.split("/"):
            raise UnfitArchive(f"{name!r} cannot be the name of an object in a vault.")
        return f"{self._root}/{name}"

    def _sync_local(self, path: str) -> None:
        """On a folder of this machine: a file is on disk before it gets its name, the name before it is told."""
        if "file" in self._fs.protocol or "local" in self._fs.protocol:
            handle = os.open(path, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)


class _Doing:
    """Turns whatever a store raises into VaultUnavailable that says what was being done."""

    def __init__(self, vault: Vault, what: str) -> None:
        self._vault = vault
        self._what = what

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, Exception) and not isinstance(error, RewindError):
            reason = str(error) or type(error).__name__
            kind_of = NotInVault if isinstance(error, FileNotFoundError) else VaultUnavailable
            raise kind_of(f"The vault {self._vault.url} fails to {self._what}: {reason}.") from error


def check_kind(url: str) -> None:
    """Raises BadSetting for a URL of no kind of place that is known: for who gives it, before it is kept."""
    kind = url.partition("://")[0].partition("::")[0]
    from fsspec.registry import available_protocols  # type: ignore[import-untyped]

    if kind not in available_protocols():
        raise BadSetting(
            f"{kind}:// is no kind of place that is known.", "Use file://, s3://, gs://, abfs://, ssh:// or sftp://."
        )


def check_url(url: str) -> None:
    """Raises BadSetting for a URL with a secret in it: URLs are printed and logged."""
    parts = urlsplit(url)
    if parts.password or ("@" in parts.netloc and ":" in parts.netloc.split("@")[0]):
        raise BadSetting(
            "A vault's URL must not hold a password, since URLs are shown.",
            "Give secrets through the vault's options file or the environment of its client library.",
        )
