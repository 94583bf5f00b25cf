"""The jobs that a child process does once: each takes the job's fields and gives its result, both plain JSON.

One rule: a job that returns has read back what it wrote; anything else raises.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from backup import holds
from backup.access import access_from, enter, open_vault
from backup.capture import Order
from backup.capture import capture as take_image
from backup.child import Line, Progress
from backup.copying import copy_vault
from backup.drill import drill as restore_drill
from backup.expire import delete_images
from backup.expire import expire as delete_expired
from backup.inventory import inventory
from backup.manifest import as_plain, image_name
from backup.plan_expiry import policy_from
from backup.synthesis import synthesise as make_image
from backup.vault import Vault
from backup.verify import verify as look_deep
from model.errors import UnfitArchive
from storage.image import Image

STEPS: Final = frozenset({"log", "files", "objects"})  # what progress is told of, beside the rows of tables


def steps_of(line: Line) -> Progress:
    """Tells the server of (what, done, of how many)."""
    return lambda what, done, total: line.step(what if what in STEPS else "rows", done, total)


def capture(job: Mapping[str, Any], line: Line) -> dict[str, Any]:
    """Enters the vault, waits to hear of what an image is wanted, and takes it.

    Fields: vault, cluster_id, is_known, label (its vault.json as another server sees it, or null). Tells `entered` with
    the label; then a line has to come with `checkpoint` (a folder), `order` (the fields of capture.Order) and `hold`.
    """
    vault = open_vault(access_from(job["vault"]))
    enter(vault, job["cluster_id"], bool(job["is_known"]), int(time.time() * 1000))
    label = vault.label()
    if job["label"] not in (None, label):
        raise UnfitArchive(
            f"{vault.url} is another place here than on the server that leads.",
            "A vault that is a folder has to be the same one, shared by all servers, for each of them to write to it.",
        )
    line.tell("entered", label=label)
    while (wanted := line.newest_order(timeout_s=60)) is None:
        pass  # when the server ends, so does this process
    order = Order(**{**wanted["order"], "selection": tuple(wanted["order"]["selection"])})
    with Image(Path(wanted["checkpoint"])) as image:
        captured = take_image(image, vault, order, line.progress)
    if wanted["hold"]:
        holds.hold(vault, order.image)
    return {**as_plain(captured.manifest), "manifest_sha256": captured.sha256}


def look(job: Mapping[str, Any], line: Line) -> dict[str, Any]:
    """What the vault holds: images, restorable ranges, size of the log, what is damaged."""
    return inventory(open_vault(access_from(job["vault"])))


def expire(job: Mapping[str, Any], line: Line) -> dict[str, Any]:
    """Deletes what the `retention` lets go of; with `dry_run` it only says what."""
    vault = open_vault(access_from(job["vault"]))
    done = delete_expired(vault, policy_from(job["retention"]), job["now_ms"], bool(job["dry_run"]))
    return {
        "images": list(done.expiry.images),
        "slices": len(done.expiry.slices),
        "leftovers": list(done.leftovers),
        "kept": dict(done.expiry.kept),
        "dry_run": bool(job["dry_run"]),
    }


def delete(job: Mapping[str, Any], line: Line) -> dict[str, Any]:
    """Deletes `images` by request, unless the `retention` or a hold covers them; with `dry_run` it only says so."""
    policy, dry_run = policy_from(job["retention"]), bool(job["dry_run"])
    vault = open_vault(access_from(job["vault"]))
    images = _meant(vault, job)
    delete_images(vault, images, policy, job["now_ms"], dry_run)
    return {"images": images, "slices": 0, "leftovers": [], "kept": {}, "dry_run": dry_run}


def _meant(vault: Vault, job: Mapping[str, Any]) -> list[str]:
    """The `images`; with `is_one_of_several` vaults those that this one has."""
    if not job.get("is_one_of_several"):
        return list(job["images"])
    return [image for image in job["images"] if holds.is_there(vault, image)]


def hold(job: Mapping[str, Any], line: Line) -> dict[str, Any]:
    """Holds `images`."""
    vault = open_vault(access_from(job["vault"]))
    images = _meant(vault, job)
    for image in images:
        holds.hold(vault, image)
    return {"images": images, "held": True}


def release(job: Mapping[str, Any], line: Line) -> dict[str, Any]:
    """Ends the holds of `images`."""
    vault = open_vault(access_from(job["vault"]))
    images = _meant(vault, job)
    for image in images:
        holds.release(vault, image)
    return {"images": images, "held": False}


def verify(job: Mapping[str, Any], line: Line) -> dict[str, Any]:
    """Looks at the vault as deep as `depth` says, in the folder `scratch` if need be."""
    part = None if job["part"] is None else (int(job["part"][0]), int(job["part"][1]))
    vault = open_vault(access_from(job["vault"]))
    return look_deep(vault, job["depth"], steps_of(line), Path(job["scratch"]), part).as_plain()


def drill(job: Mapping[str, Any], line: Line) -> dict[str, Any]:
    """Restores the newest moment into the folder `scratch`, compares, and throws it away."""
    return restore_drill(open_vault(access_from(job["vault"])), Path(job["scratch"]), steps_of(line))


def synthesise(job: Mapping[str, Any], line: Line) -> dict[str, Any]:
    """Makes a new image out of the newest one and the log."""
    vault = open_vault(access_from(job["vault"]))
    return as_plain(make_image(vault, Path(job["scratch"]), image_name, job["version"], steps_of(line)))


def sync(job: Mapping[str, Any], line: Line) -> dict[str, Any]:
    """Copies to the vault `to` what it lacks."""
    copied = copy_vault(open_vault(access_from(job["vault"])), open_vault(access_from(job["to"])), steps_of(line))
    return {"images": copied.images, "objects": copied.objects, "bytes": copied.bytes}
