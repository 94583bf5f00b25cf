"""How log lines look: for people (text) or for machines (one JSON object on a line).

One rule: what is said beside the message (`extra={...}`) is kept as fields, never lost in prose.
"""

from __future__ import annotations

import json
import logging
import logging.config
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from model.errors import BadSetting

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    return {name: value for name, value in vars(record).items() if name not in _STANDARD}


def message_of(record: logging.LogRecord) -> str:
    """`message key=value`"""
    return record.getMessage() + "".join(f" {name}={value}" for name, value in _fields(record).items())


class TextFormatter(logging.Formatter):
    """`2026-03-01T12:00:00.000Z warning rewinddb.wal: message key=value`"""

    def format(self, record: logging.LogRecord) -> str:
        line = f"{_time(record)} {record.levelname.lower()} {record.name}: {message_of(record)}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class JsonFormatter(logging.Formatter):
    """`{"time": ..., "level": ..., "logger": ..., "message": ..., key: value, "traceback": ...}`"""

    def format(self, record: logging.LogRecord) -> str:
        fields = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        return json.dumps(fields, default=str)


def set_up(level: str, form: str, file: str, config_file: str) -> None:
    """Starts logging of this process; raises BadSetting if a file cannot be used."""
    if config_file:
        try:
            logging.config.dictConfig(yaml.safe_load(Path(config_file).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError, AttributeError, ImportError, yaml.YAMLError) as error:
            raise BadSetting(f"logging.config_file: {config_file} cannot be used: {error}") from error
        return
    try:
        handler = logging.FileHandler(file, encoding="utf-8") if file else logging.StreamHandler(sys.stderr)
    except OSError as error:
        raise BadSetting(f"logging.file: found {file!r}; allowed: a file that can be written ({error})") from error
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    for name, at_least in (("rewinddb", level.upper()), ("twisted", "WARNING"), ("asyncio", "WARNING")):
        logger = logging.getLogger(name)
        logger.handlers[:] = [handler]
        logger.setLevel(at_least)
        logger.propagate = False


def follow_twisted() -> None:
    """Sends what Twisted logs, such as errors that nobody waited for, the way of all other lines."""
    from twisted.logger import STDLibLogObserver, globalLogBeginner

    observer: Any = STDLibLogObserver("twisted")
    globalLogBeginner.beginLoggingTo([observer], redirectStandardIO=False)
