"""The jobs that a child process does once: each takes the job's fields and gives its result, both plain JSON.

One rule: a job that returns has read back what it wrote; anything else raises.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from backup.access import access_from, enter, open_vault
from backup.capture import Order
from backup.capture import capture as take_image
from backup.child import Line
from backup.manifest import as_plain
from storage.image import Image


def capture(job: Mapping[str, Any], line: Line) -> dict[str, Any]:
    """Takes a base image of the checkpoint in folder `checkpoint`; `order` holds the fields of capture.Order."""
    order = Order(**{**job["order"], "selection": tuple(job["order"].get("selection", ()))})
    vault = open_vault(access_from(job["vault"]))
    enter(vault, order.cluster_id, bool(job.get("is_known")), int(time.time() * 1000))
    with Image(Path(job["checkpoint"])) as image:
        manifest = take_image(image, vault, order, line.progress)
    return as_plain(manifest)
