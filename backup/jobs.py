"""The jobs that a child process does once: each takes the job's fields and gives its result, both plain JSON.

One rule: a job that returns has read back what it wrote; anything else raises.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from backup import holds
from backup.access import access_from, enter, open_vault
from backup.capture import Order
from backup.capture import capture as take_image
from backup.child import Line
from backup.copying import copy_vault
from backup.drill import drill as restore_drill
from backup.expire import delete_images
from backup.expire import expire as delete_expired
from backup.inventory import inventory
from backup.manifest import as_plain, image_name
from backup.plan_expiry import policy_from
from backup.synthesis import synthesise as make_image
from backup.verify import verify as look_deep
from storage.image import Image


def capture(job: Mapping[str, Any], line: Line) -> dict[str, Any]:
    """Takes a base image of the checkpoint in folder `checkpoint`; `order` holds the fields of capture.Order."""
    order = Order(**{**job["order"], "selection": tuple(job["order"].get("selection", ()))})
    vault = open_vault(access_from(job["vault"]))
    enter(vault, order.cluster_id, bool(job.get("is_known")), int(time.time() * 1000))
    with Image(Path(job["checkpoint"])) as image:
        manifest = take_image(image, vault, order, line.progress)
    if job.get("hold"):
        holds.hold(vault, order.image)
    return as_plain(manifest)


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
    delete_images(open_vault(access_from(job["vault"])), job["images"], policy, job["now_ms"], dry_run)
    return {"images": list(job["images"]), "slices": 0, "leftovers": [], "kept": {}, "dry_run": dry_run}


def hold(job: Mapping[str, Any], line: Line) -> dict[str, Any]:
    """Holds `images`."""
    vault = open_vault(access_from(job["vault"]))
    for image in job["images"]:
        holds.hold(vault, image)
    return {"images": list(job["images"]), "held": True}


def release(job: Mapping[str, Any], line: Line) -> dict[str, Any]:
    """Ends the holds of `images`."""
    vault = open_vault(access_from(job["vault"]))
    for image in job["images"]:
        holds.release(vault, image)
    return {"images": list(job["images"]), "held": False}


def verify(job: Mapping[str, Any], line: Line) -> dict[str, Any]:
    """Looks at the vault as deep as `depth` says, in the folder `scratch` if need be."""
    part = None if job["part"] is None else (int(job["part"][0]), int(job["part"][1]))
    vault = open_vault(access_from(job["vault"]))
    return look_deep(vault, job["depth"], line.progress, Path(job["scratch"]), part).as_plain()


def drill(job: Mapping[str, Any], line: Line) -> dict[str, Any]:
    """Restores the newest moment into the folder `scratch`, compares, and throws it away."""
    return restore_drill(open_vault(access_from(job["vault"])), Path(job["scratch"]), line.progress)


def synthesise(job: Mapping[str, Any], line: Line) -> dict[str, Any]:
    """Makes a new image out of the newest one and the log."""
    vault = open_vault(access_from(job["vault"]))
    return as_plain(make_image(vault, Path(job["scratch"]), image_name, job["version"], line.progress))


def sync(job: Mapping[str, Any], line: Line) -> dict[str, Any]:
    """Copies to the vault `to` what it lacks."""
    copied = copy_vault(open_vault(access_from(job["vault"])), open_vault(access_from(job["to"])), line.progress)
    return {"images": copied.images, "objects": copied.objects, "bytes": copied.bytes}
