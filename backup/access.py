"""How a vault is reached: what its row in `rethinkdb.vaults` says, checked, and the vault that comes of it.

One rule: a secret is never a value here. Rows, jobs, logs and manifests name files and environment variables; who
opens the vault reads them.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Final

from backup.sealing import DEFAULT_LEVEL, keyring_from
from backup.vault import PAUSES_S, Vault, VaultUnavailable, check_kind, check_url
from model.errors import BadSetting

NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}\Z")
MAX_LEVEL: Final = 19
_SECRET_WORDS: Final = ("password", "secret", "token", "passphrase", "credential")


@dataclass(frozen=True, slots=True)
class VaultAccess:
    """A vault by name and place.

    level: zstd's, 0 for none. key_file, passphrase_file: encryption. options_file: JSON object, options of the
    fsspec file system. environment: option -> name of the environment variable that holds it. options: those that
    are no secrets.
    """

    name: str
    url: str
    level: int = DEFAULT_LEVEL
    key_file: str = ""
    passphrase_file: str = ""
    options_file: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check(self)

    def as_plain(self) -> dict[str, Any]:
        """For a job of a child process: `access_from` gives it back."""
        return asdict(self)


ACCESS_FIELDS: Final = tuple(f.name for f in fields(VaultAccess))


def access_from(plain: Mapping[str, Any]) -> VaultAccess:
    """The access in a row or a job; fields that belong to something else are left alone. Raises BadSetting."""
    try:
        return VaultAccess(**{name: plain[name] for name in ACCESS_FIELDS if plain.get(name) is not None})
    except TypeError as error:
        raise BadSetting(f"A vault needs a `name` and a `url` ({error}).") from error


def access_to_url(url: str, key_file: str = "", passphrase_file: str = "", options_file: str = "") -> VaultAccess:
    """The access to a vault that only its URL tells of, as on a command line. Raises BadSetting."""
    check_kind(url)
    return VaultAccess("vault", url, key_file=key_file, passphrase_file=passphrase_file, options_file=options_file)


def open_vault(access: VaultAccess) -> Vault:
    """Reads the key and option files, and opens the vault. Raises BadSetting or VaultUnavailable."""
    files = {"key_file": access.key_file, "passphrase_file": access.passphrase_file}
    try:
        keyring = keyring_from({name: file for name, file in files.items() if file})
        options = {**access.options, **_options_in(access.options_file)}
    except OSError as error:
        raise BadSetting(f"The vault {access.name} names a file that cannot be read: {error}.") from error
    for option, variable in access.environment.items():
        if variable not in os.environ:
            raise BadSetting(
                f"The vault {access.name} takes `{option}` from the environment variable {variable}, which is not set.",
                "Set it for the server process and start it again.",
            )
        options[option] = os.environ[variable]
    return Vault(access.url, options, keyring, access.level, PAUSES_S)


def enter(vault: Vault, cluster_id: str, is_known: bool, time_ms: int) -> None:
    """Before anything is written: claims a new vault for this cluster. is_known: it was claimed before.

    Raises UnfitArchive if it is another cluster's, VaultUnavailable if it is not the place that it was: an empty
    mount point must not be taken for a new vault.
    """
    if is_known and vault.label() is None:
        raise VaultUnavailable(
            f"The vault {vault.url} has lost its vault.json: it is not the place that it was.",
            "Check that the volume is mounted; to begin anew there, delete the vault's row and insert it again.",
        )
    vault.claim(cluster_id, time_ms)


def _options_in(file: str) -> dict[str, Any]:
    if not file:
        return {}
    try:
        options = json.loads(Path(file).read_text(encoding="utf-8"))
    except ValueError as error:
        raise BadSetting(f"{file} is not JSON: {error}.") from error
    if not isinstance(options, dict):
        raise BadSetting(f"{file} has to hold a JSON object.")
    return options


def _check(access: VaultAccess) -> None:
    if not isinstance(access.name, str) or not NAME.match(access.name):
        raise BadSetting(f"{access.name!r} cannot be a vault's name: use up to 64 letters, digits, - and _.")
    for name in ("url", "key_file", "passphrase_file", "options_file"):
        if not isinstance(getattr(access, name), str):
            raise BadSetting(f"A vault's `{name}` is text.")
    if "://" not in access.url:
        raise BadSetting(
            f"{access.url!r} is not the URL of a vault.", "For a folder write file:///path, for S3 s3://bucket/folder."
        )
    check_url(access.url)
    is_level = isinstance(access.level, int) and not isinstance(access.level, bool)
    if not is_level or not 0 <= access.level <= MAX_LEVEL:
        raise BadSetting(f"A vault's `level` is a whole number from 0 (no compression) to {MAX_LEVEL}.")
    if access.key_file and access.passphrase_file:
        raise BadSetting("A vault has either a `key_file` or a `passphrase_file`.")
    environment = access.environment
    is_text = isinstance(environment, Mapping) and all(isinstance(variable, str) for variable in environment.values())
    if not is_text:
        raise BadSetting("A vault's `environment` is an object of option names to names of environment variables.")
    if not isinstance(access.options, Mapping):
        raise BadSetting("A vault's `options` is an object.")
    for option in access.options:
        if any(word in str(option).lower() for word in _SECRET_WORDS) or option == "key":
            raise BadSetting(
                f"A vault's `options` are shown to who reads the table; `{option}` looks like a secret.",
                "Put it into an `options_file`, or name an environment variable in `environment`.",
            )
