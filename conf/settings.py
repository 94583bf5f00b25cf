"""Every setting of a server, with its type, default and limits.

One rule: only `conf` knows the tree of settings; components take the plain values they need. What each
setting means is told in conf/single.yaml, which a test holds against this file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from conf.loader import build, override, read_yaml
from model.errors import BadSetting

MIB = 1 << 20
GIB = 1 << 30


def whole(default: int, low: int, high: int) -> Any:
    """A field that holds a whole number within limits, both inclusive."""
    return field(default=default, metadata={"low": low, "high": high})


def port(default: int) -> Any:
    """A field that holds a TCP port; 0 takes any free one."""
    return whole(default, 0, 65535)


def text(default: str) -> Any:
    """A field that holds text that is not empty."""
    return field(default=default, metadata={"needed": True})


@dataclass(frozen=True, slots=True)
class Tls:
    """Files in PEM format. Both a certificate and its key switch TLS on; a CA file asks peers for certificates."""

    certificate_file: str = ""
    key_file: str = ""
    ca_file: str = ""

    @property
    def is_on(self) -> bool:
        return bool(self.certificate_file)


@dataclass(frozen=True, slots=True)
class Server:
    name: str = ""
    data_dir: str = text("rewinddb_data")
    shutdown_timeout_ms: int = whole(10_000, 0, 600_000)


@dataclass(frozen=True, slots=True)
class Driver:
    address: str = text("127.0.0.1")
    port: int = port(28015)
    tls: Tls = Tls()


@dataclass(frozen=True, slots=True)
class Cluster:
    address: str = text("127.0.0.1")
    port: int = port(29015)
    advertise: str = ""
    join: str = field(default="", repr=False, metadata={"secret": True})
    election_timeout_ms: int = whole(600, 100, 60_000)
    tls: Tls = Tls()


@dataclass(frozen=True, slots=True)
class Http:
    enabled: bool = True
    address: str = text("127.0.0.1")
    port: int = port(8080)
    tls: Tls = Tls()


@dataclass(frozen=True, slots=True)
class Storage:
    cache_bytes: int | Literal["auto"] = field(default="auto", metadata={"low": 8 * MIB, "high": 1 << 46})
    compression: Literal["lz4", "zstd"] = "lz4"
    flush_interval_ms: int = whole(60_000, 100, 3_600_000)


@dataclass(frozen=True, slots=True)
class Log:
    segment_bytes: int = whole(64 * MIB, 1 * MIB, 1 * GIB)
    retain_bytes: int = whole(256 * MIB, 0, 1 << 46)
    catch_up_bytes: int = whole(1 * GIB, 0, 1 << 46)
    uncommitted_bytes: int = whole(256 * MIB, 1 * MIB, 16 * GIB)


@dataclass(frozen=True, slots=True)
class Limits:
    query_bytes: int = whole(128 * MIB - 1, 1024, 1 * GIB - 1)
    array_limit: int = whole(100_000, 1, 100_000_000)
    connections: int = whole(10_000, 1, 1_000_000)
    queries_in_flight: int = whole(1024, 1, 1_000_000)
    handshake_timeout_ms: int = whole(10_000, 100, 600_000)


@dataclass(frozen=True, slots=True)
class Writes:
    durability: Literal["hard", "soft"] = "hard"


@dataclass(frozen=True, slots=True)
class Admin:
    initial_password: str = field(default="", repr=False, metadata={"secret": True})
    initial_password_file: str = ""


@dataclass(frozen=True, slots=True)
class Reql:
    http_enabled: bool = False
    http_private_addresses: bool = False
    http_max_bytes: int = whole(64 * MIB, 1024, 1 * GIB)
    js_enabled: bool = True


@dataclass(frozen=True, slots=True)
class Backup:
    max_log_bytes: int = whole(8 * GIB, 1 * MIB, 1 << 46)
    max_bytes_per_second: int = whole(0, 0, 1 << 40)
    stall_timeout_ms: int = whole(600_000, 1_000, 86_400_000)
    alarm_gap_ms: int = whole(60_000, 1_000, 86_400_000)
    alarm_age_ms: int = whole(172_800_000, 0, 31_536_000_000)


@dataclass(frozen=True, slots=True)
class Logging:
    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["text", "json"] = "text"
    file: str = ""
    config_file: str = ""


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings of one server process."""

    server: Server = Server()
    driver: Driver = Driver()
    cluster: Cluster = Cluster()
    http: Http = Http()
    storage: Storage = Storage()
    log: Log = Log()
    writes: Writes = Writes()
    limits: Limits = Limits()
    admin: Admin = Admin()
    reql: Reql = Reql()
    backup: Backup = Backup()
    logging: Logging = Logging()


def load(path: Path | None, overrides: Mapping[str, Any] | None = None) -> Settings:
    """Settings from a YAML file (None: defaults only), with values at dotted paths put over it.

    An override of None means that the flag was not given. Raises BadSetting.
    """
    raw = read_yaml(path) if path else {}
    for dotted, value in (overrides or {}).items():
        if value is not None:
            raw = override(raw, dotted, value)
    settings = build(Settings, raw)
    for section in ("driver", "cluster", "http"):
        _check_tls(section, getattr(settings, section).tls)
    if settings.admin.initial_password and settings.admin.initial_password_file:
        raise BadSetting("admin: initial_password and initial_password_file are both set; allowed: one of them")
    return settings


def _check_tls(section: str, tls: Tls) -> None:
    if bool(tls.certificate_file) != bool(tls.key_file):
        missing = "key_file" if tls.certificate_file else "certificate_file"
        raise BadSetting(f"{section}.tls.{missing}: found nothing; allowed: a file, as its counterpart is set")
    if tls.ca_file and not tls.certificate_file:
        raise BadSetting(f"{section}.tls.ca_file: found {tls.ca_file!r}; allowed: only beside a certificate_file")
    for name in ("certificate_file", "key_file", "ca_file"):
        file = getattr(tls, name)
        if file and not Path(file).is_file():
            raise BadSetting(f"{section}.tls.{name}: found {file!r}; allowed: a file that exists")
