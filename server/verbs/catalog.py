"""What vaults hold, for people and for scripts: the verb `backups`, as `pgbackrest info` tells it.

One rule: pure text. The same document is printed as JSON or as lines.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from backup.timeline import format_time

UNITS: Final = ("B", "KB", "MB", "GB", "TB", "PB")
STEP: Final = 1000


def size(count: float) -> str:
    """12.3 MB"""
    unit = 0
    while count >= STEP and unit < len(UNITS) - 1:
        count /= STEP
        unit += 1
    return f"{count:.0f} {UNITS[unit]}" if unit == 0 else f"{count:.1f} {UNITS[unit]}"


def catalog_of(
    contents: Mapping[str, Any], vault: Mapping[str, Any] | None, tasks: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """One vault of the catalog. contents: backup.inventory; vault: its row; tasks: rows of `backup_tasks`."""
    found: dict[str, Any] = {
        "name": None if vault is None else vault["name"],
        "url": contents["url"],
        "cluster_id": contents["cluster_id"],
        "encrypted": contents["encrypted"],
        "stored_bytes": contents["stored_bytes"],
        "log": contents["log"],
        "restorable": [
            {
                "first_log_index": part["first_index"],
                "last_log_index": part["last_index"],
                "first_time": format_time(part["first_ms"]),
                "last_time": format_time(part["last_ms"]),
            }
            for part in contents["ranges"]
        ],
        "images": [_image(image) for image in contents["images"]],
        "damaged": contents["damaged"],
    }
    if vault is not None:
        found |= {name: vault[name] for name in ("state", "error", "gap", "shipped_index", "required", "missing")}
        found["last_verification"] = _last(tasks, "verify", vault["name"])
        found["last_drill"] = _last(tasks, "drill", vault["name"])
    return found


def unreachable(vault: Mapping[str, Any], why: str) -> dict[str, Any]:
    """A vault of the catalog that could not be looked at."""
    shown = {name: vault[name] for name in ("name", "url", "state", "gap", "shipped_index", "required", "missing")}
    return {**shown, "error": why, "images": [], "restorable": [], "log": None, "damaged": []}


def _image(image: Mapping[str, Any]) -> dict[str, Any]:
    shown = {name: value for name, value in image.items() if name != "time_ms"}
    return {**shown, "time": format_time(image["time_ms"])}


def _last(tasks: Sequence[Mapping[str, Any]], kind: str, vault: str) -> dict[str, Any] | None:
    done = [task for task in tasks if task["task"] == kind and vault in task["vaults"] and task["finished"]]
    if not done:
        return None
    newest = max(done, key=lambda task: str(task["finished"]))
    result = (newest["result"] or {}).get(vault) or {}
    return {
        "time": newest["finished"],
        "state": newest["state"],
        "depth": newest["depth"] if kind == "verify" else None,
        "problems": len(result.get("problems") or ()),
        "error": newest["error"],
        "restore_seconds": result.get("restore_seconds"),
    }


def catalog_lines(found: Mapping[str, Any]) -> list[str]:
    """One vault of the catalog as text."""
    title = found["url"] if found["name"] is None else f"{found['name']} ({found['url']})"
    lines = [f"vault: {title}"]
    if "state" in found:
        lines.append(f"    status: {_status(found)}")
    if found["log"] is None:
        return lines
    lines.append(f"    encryption: {'yes' if found['encrypted'] else 'none'}")
    lines.append(f"    size: {size(found['stored_bytes'])}")
    for part in found["restorable"]:
        span = f"{part['first_time']} to {part['last_time']}"
        lines.append(f"    restorable: {span} (log index {part['first_log_index']} to {part['last_log_index']})")
    if not found["restorable"]:
        lines.append("    restorable: nothing yet: there is no image of the whole server")
    log = found["log"]
    if log["slices"]:
        held = f"{log['slices']} slices, {size(log['bytes'])}"
        lines.append(f"    log: entries {log['first_index']} to {log['last_index']}, {held}")
    lines += [f"    DAMAGED: {damage['name']}: {damage['why']}" for damage in found["damaged"]]
    for kind, what in (("last_verification", "verified"), ("last_drill", "drill")):
        if found.get(kind):
            lines.append(f"    {what}: {_proof(found[kind])}")
    for image in found["images"]:
        lines += _image_lines(image)
    return lines


def _status(found: Mapping[str, Any]) -> str:
    parts = [str(found["state"])]
    if found["error"]:
        parts.append(str(found["error"]))
    if found["shipped_index"] is not None:
        parts.append(f"log shipped up to entry {found['shipped_index']}")
    if found["gap"] is not None:
        parts.append(f"gap {found['gap']:.1f} s")
    if found["missing"]:
        first, last = found["missing"]
        parts.append(f"lacks entries {first} to {last}")
    return ", ".join(parts)


def _proof(proof: Mapping[str, Any]) -> str:
    words = [str(proof["time"]), str(proof["state"])]
    if proof["depth"]:
        words.append(f"depth {proof['depth']}")
    if proof["restore_seconds"] is not None:
        words.append(f"restored in {proof['restore_seconds']} s")
    if proof["error"]:
        words.append(str(proof["error"]))
    return ", ".join(words)


def _image_lines(image: Mapping[str, Any]) -> list[str]:
    what = ", ".join(image["selection"]) or "the whole server"
    tables = len(image["tables"])
    lines = [
        f"    image: {image['image']}{'  (held)' if image.get('held') else ''}",
        f"        of: {what}, {tables} {'table' if tables == 1 else 'tables'}, log index {image['log_index']}",
        f"        time: {image['time']}, taken in {image['seconds']:.1f} s",
        f"        rows: {image['rows']}, {size(image['bytes'])}, stored as {size(image['stored_bytes'])}",
    ]
    if image["parent"]:
        lines.append(f"        made from: {image['parent']} and the log")
    return lines
