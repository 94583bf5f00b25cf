"""How every object in a vault is packed: compressed, then encrypted if there is a key.

One rule: what is read was written by us, whole, under this very name: the name is authenticated with the content,
and an object that does not open is damaged, never guessed at.

Format: b"RWND", version 2 (1 byte), flags (1 byte: 1 = zstd, 2 = encrypted), key id (8 bytes, zeros if not
encrypted), nonce (12 bytes, only if encrypted), body, and a BLAKE2b hash (16 bytes) of the object's name and of the
SHA-256 of all before it: one pass over an object gives both this and the digest by which manifests know it. In version
1, which is read as well, that hash is of the name and all before it. The associated data of the AEAD
(ChaCha20-Poly1305, RFC 8439) is the header and the name, so that objects can neither be forged nor change places; the
hash finds damage where there is no key.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import zstandard
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
from cryptography.hazmat.primitives.poly1305 import Poly1305

from model.errors import BadSetting, UnfitArchive

MAGIC: Final = b"RWND"
VERSION: Final = 2
FIRST_VERSION: Final = 1
ZSTD: Final = 1
ENCRYPTED: Final = 2
NO_KEY: Final = bytes(8)
NONCE_BYTES: Final = 12
HASH_BYTES: Final = 16
DEFAULT_LEVEL: Final = 2  # of zstd; level 3 takes twice the time and makes rows of JSON no smaller
FAST_WINDOW_LOG: Final = 18
FAST_HASH_LOG: Final = 15
MAX_OBJECT_BYTES: Final = 1 << 30  # unpacked; larger ones are refused before they are unpacked
_CONTENT_KEY: Final = hashlib.blake2b(b"rewinddb contents, version 1", digest_size=32).digest()
_SCRYPT_SALT: Final = b"rewinddb vault key, version 1"  # a passphrase must give the same key on every server


class UnknownKey(UnfitArchive):
    """An object may be whole, but cannot be opened with the keys at hand."""


class Sealed(NamedTuple):
    """An object as it is stored, and its digest (SHA-256, in hex)."""

    stored: bytes
    sha256: str


class Keyring:
    """The keys of a vault by id. The last one given is used for what is written; all are tried for what is read."""

    def __init__(self, keys: Sequence[bytes] = ()) -> None:
        self._keys = {key_id(key): key for key in keys}
        self._current = key_id(keys[-1]) if keys else None

    @property
    def encrypts(self) -> bool:
        return self._current is not None

    @property
    def ids(self) -> list[str]:
        """The ids of the keys, in hex: what may be shown of them."""
        return [id.hex() for id in self._keys]

    def current(self) -> tuple[bytes, bytes]:
        """(id, key) for writing; only when `encrypts`."""
        assert self._current is not None
        return self._current, self._keys[self._current]

    def find(self, id: bytes) -> bytes | None:
        return self._keys.get(id)


def key_id(key: bytes) -> bytes:
    """A short name of a key that tells nothing about it."""
    return hashlib.blake2b(key, digest_size=8, person=b"rewind key id").digest()


def new_key() -> bytes:
    """A fresh random key of 32 bytes."""
    return os.urandom(32)


def key_from_passphrase(passphrase: str) -> bytes:
    """The key that a passphrase stands for (scrypt, RFC 7914: N = 2**16, r = 8, p = 1; about 0.2 s)."""
    return Scrypt(salt=_SCRYPT_SALT, length=32, n=1 << 16, r=8, p=1).derive(passphrase.encode())


def read_key_file(path: Path) -> Keyring:
    """A file with one base64 key of 32 bytes per line, oldest first; lines with # are comments. Raises BadSetting."""
    keys = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        text = line.partition("#")[0].strip()
        if not text:
            continue
        try:
            key = base64.b64decode(text, validate=True)
        except ValueError:
            key = b""
        if len(key) != 32:
            raise BadSetting(f"{path}, line {number}: not a base64 key of 32 bytes.")
        keys.append(key)
    if not keys:
        raise BadSetting(f"{path} holds no key.", "Make one with `rewinddb vault key FILE`.")
    return Keyring(keys)


def seal(
    name: str, content: bytes | bytearray, keyring: Keyring, level: int = DEFAULT_LEVEL, threads: int = 0
) -> Sealed:
    """The object to store under `name`. level: zstd's, 0 for none; threads: for large contents."""
    flags = 0
    body: bytes | bytearray = content
    if level:
        flags |= ZSTD
        body = zstandard.ZstdCompressor(compression_params=_how_to_pack(level, len(content), threads)).compress(content)
    if not keyring.encrypts:
        return _with_hash(name, MAGIC + bytes((VERSION, flags)) + NO_KEY, body)
    id, key = keyring.current()
    head = MAGIC + bytes((VERSION, flags | ENCRYPTED)) + id
    nonce = os.urandom(NONCE_BYTES)
    return _with_hash(name, head + nonce, ChaCha20Poly1305(key).encrypt(nonce, body, head + name.encode()))


def _how_to_pack(level: int, size: int, threads: int) -> zstandard.ZstdCompressionParameters:
    """Fast levels keep to what the processor's cache holds: a seventh less time, rows of JSON a thirtieth larger."""
    window = {"window_log": FAST_WINDOW_LOG, "hash_log": FAST_HASH_LOG} if level <= DEFAULT_LEVEL else {}
    return zstandard.ZstdCompressionParameters.from_level(level, source_size=size, threads=threads, **window)


def _with_hash(name: str, *parts: bytes | bytearray) -> Sealed:
    whole = hashlib.sha256()
    for part in parts:
        whole.update(part)
    named = _named(name, whole.digest())
    whole.update(named)
    return Sealed(b"".join((*parts, named)), whole.hexdigest())


def _named(name: str, sha256: bytes) -> bytes:
    return hashlib.blake2b(name.encode() + sha256, digest_size=HASH_BYTES, person=b"rewind object 2").digest()


def _hash(version: int, name: str, before: bytes | memoryview) -> bytes:
    """What is to be at the end of an object, behind all that is before."""
    if version != FIRST_VERSION:
        return _named(name, hashlib.sha256(before).digest())
    named = hashlib.blake2b(name.encode(), digest_size=HASH_BYTES, person=b"rewind object")
    named.update(before)
    return named.digest()


def unseal(name: str, stored: bytes, keyring: Keyring, is_known: bool = False) -> bytes:
    """The content of an object that was stored under `name`; raises UnfitArchive if it is not whole and ours.

    is_known: as for `open_sealed`.
    """
    body, is_compressed = open_sealed(name, stored, keyring, is_known)
    if not is_compressed:
        return body
    try:
        size = zstandard.frame_content_size(body)
        if size > MAX_OBJECT_BYTES:
            raise UnfitArchive(f"{name} would unpack to {size} bytes; the limit is {MAX_OBJECT_BYTES}.")
        if size < 0:
            raise UnfitArchive(f"{name} does not say how large it is.")
        return zstandard.ZstdDecompressor().decompress(body, max_output_size=MAX_OBJECT_BYTES)
    except zstandard.ZstdError as error:
        raise UnfitArchive(f"{name} is damaged: {error}.") from error


def open_sealed(name: str, stored: bytes, keyring: Keyring, is_known: bool = False) -> tuple[bytes, bool]:
    """What was sealed under `name`, decrypted, and whether it is a frame of zstd. Raises UnfitArchive.

    is_known: `stored` has the digest that a manifest says `name` has, so nothing is left to find by the hash in it.
    """
    if len(stored) < 14 + HASH_BYTES or not stored.startswith(MAGIC):
        raise UnfitArchive(f"{name} is not an object of a vault (its first bytes are {stored[:4]!r}).")
    version, flags = stored[4], stored[5]
    if version not in (FIRST_VERSION, VERSION) or flags & ~(ZSTD | ENCRYPTED):
        raise UnfitArchive(f"{name} has format {version}/{flags}, which this version does not read.")
    if not is_known and _hash(version, name, memoryview(stored)[:-HASH_BYTES]) != stored[-HASH_BYTES:]:
        raise UnfitArchive(f"{name} is damaged, or was stored under another name.")
    body = stored[14:-HASH_BYTES]
    if flags & ENCRYPTED:
        key = keyring.find(stored[6:14])
        if key is None:
            raise UnknownKey(
                f"{name} is encrypted with key {stored[6:14].hex()}, which is not in the keyring.",
                "Give the key file or passphrase that this vault was written with.",
            )
        try:
            body = ChaCha20Poly1305(key).decrypt(body[:NONCE_BYTES], body[NONCE_BYTES:], stored[:14] + name.encode())
        except (InvalidTag, ValueError) as error:
            raise UnfitArchive(f"{name} is damaged, or was stored under another name.") from error
    return body, bool(flags & ZSTD)


def digest(stored: bytes) -> str:
    """The hash of an object's stored bytes, in hex (SHA-256)."""
    return hashlib.sha256(stored).hexdigest()


def content_hash(content: bytes | bytearray) -> str:
    """A hash, in hex, that tells what a block unpacks to from all that is not meant to be that.

    Poly1305 under a key that everybody may know: errors cannot hit it (2**-100), forgers could, but they would have to
    pass the SHA-256 of what is stored first. It takes a seventh of the time of SHA-256.
    """
    return Poly1305.generate_tag(_CONTENT_KEY, content).hex()


def keyring_from(settings: Mapping[str, str]) -> Keyring:
    """The keyring that a vault's settings name: `key_file` or `passphrase_file`, or none. Raises BadSetting."""
    if "key_file" in settings:
        return read_key_file(Path(settings["key_file"]))
    if "passphrase_file" in settings:
        lines = Path(settings["passphrase_file"]).read_text().splitlines()
        phrases = [line for line in lines if line.strip()]
        if not phrases:
            raise BadSetting(f"{settings['passphrase_file']} holds no passphrase.")
        return Keyring([key_from_passphrase(phrase) for phrase in phrases])
    return Keyring()
