"""The texts of `rewinddb log show` and `rewinddb log verify`.

One rule: only words are made here; what the log holds comes from `describe`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wal import describe


def show(folder: Path, as_json: bool, from_index: int | None = None, limit: int | None = None) -> Iterator[str]:
    """The lines to print: a table, or one JSON array. Raises Corrupt."""
    effects = describe.describe(folder, from_index, limit)
    if as_json:
        yield "["
        before = None
        for effect in effects:
            if before is not None:
                yield f"{before},"
            before = json.dumps(effect, ensure_ascii=False)
        yield f"{before or ''}\n]"
        return
    yield f"{'index':>10} {'term':>5}  {'time':29}  {'kind':16} {'bytes':>8}  table and key"
    for effect in effects:
        yield _line(effect)


def _line(effect: dict[str, Any]) -> str:
    what = [str(effect["table"])] if effect["table"] is not None else []
    if effect["detail"]:
        what.append(json.dumps(effect["detail"], ensure_ascii=False))
    if effect["key"] is not None:
        what.append(json.dumps(effect["key"], ensure_ascii=False))
    return (
        f"{effect['index']:>10} {effect['raft_term']:>5}  {effect['time'] or '':29}  {effect['kind']:16}"
        f" {effect['bytes']:>8}  {' '.join(what)}"
    ).rstrip()


def verify(folder: Path, as_json: bool) -> tuple[bool, str]:
    """Whether the log is whole, and the text that says so."""
    report = describe.verify(folder)
    is_whole = not report["problems"]
    if as_json:
        return is_whole, json.dumps(report, indent=2, ensure_ascii=False)
    lines = [
        f"{segment['file']}: {segment['records']} records, {segment['bytes']} bytes" for segment in report["segments"]
    ]
    lines.append(
        f"{len(report['segments'])} segments, entries {report['first_index']} to {report['last_index']},"
        f" {report['records']} records, {report['bytes']} bytes"
    )
    if report["torn_tail"]:
        lines.append(f"The last write was cut short ({_place(report['torn_tail'])}); a server cuts it when it starts.")
    lines += [f"DAMAGED: {_place(problem)}: {problem['what']}" for problem in report["problems"]]
    lines.append("The log is whole." if is_whole else "The log is not whole.")
    return is_whole, "\n".join(lines)


def _place(place: dict[str, Any]) -> str:
    return f"{place['file']}, offset {place['offset']}" if "offset" in place else str(place.get("file", "the log"))
