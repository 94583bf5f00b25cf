"""What a restore will do, found out from a vault before anything is written; and in words.

One rule: whoever restores, reads the past or compares it asks here for the plan, so that the same words mean the
same moment everywhere.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

from backup.plan import NoBaseImage, Plan
from backup.rebuild import entries_of, sound_effects
from backup.shelf import Shelf, look
from backup.timeline import Moment, Walk, format_time, image_named, plan_moment
from backup.vault import Vault
from model.catalog import Catalog

MOST_SHOWN: Final = 8  # slices of the log that are listed one by one


@dataclass(frozen=True, slots=True)
class Planned:
    """A plan, and what it was made from."""

    moment: Moment
    shelf: Shelf
    plan: Plan

    def describe(self) -> list[str]:
        """The plan for people, a line each."""
        steps = self.plan.describe()
        if len(self.plan.replays) > MOST_SHOWN:
            first, last = self.plan.replays[0], self.plan.replays[-1]
            count = len(self.plan.replays)
            together = f"replay {count} slices of the log: entries {first.first_index} to {last.last_index}"
            steps = [steps[0], together, *steps[1 + count :]]
        lines = [f"moment: {self.moment.text}", *steps]
        lines += [f"left aside, since it is damaged: {name} ({why})" for name, why in self.shelf.damaged]
        return lines

    def as_plain(self) -> dict[str, Any]:
        """The plan for scripts."""
        image = self.plan.image
        pieces = [replay.piece for replay in self.plan.replays]
        return {
            "moment": self.moment.text,
            "image": image.image,
            "image_log_index": image.log_index,
            "image_time": format_time(image.time_ms),
            "image_rows": image.rows,
            "image_bytes": image.row_bytes,
            "last_log_index": self.plan.last_index,
            "until_time": None if self.plan.until_ms is None else format_time(self.plan.until_ms),
            "log_slices": len(pieces),
            "stored_bytes": image.stored_bytes + sum(piece.stored_bytes for piece in pieces),
            "damaged": [name for name, _ in self.shelf.damaged],
        }


def plan_from(vault: Vault, moment: Moment, base: str | None = None, wanted: Collection[str] = ()) -> Planned:
    """The plan for a moment of a vault. Raises what `plan_restore` raises.

    base: the name of the image to begin with. wanted: "db" and "db.table" names, if not everything is.
    """
    shelf = look(vault)
    if base is not None:
        shelf = replace(shelf, images=(image_named(shelf, base),))
    try:
        plan = plan_moment(shelf, moment, partial(read_entries, vault), wanted)
    except NoBaseImage as error:
        if not shelf.damaged:
            raise
        name, why = shelf.damaged[0]
        count = len(shelf.damaged)
        raise NoBaseImage(f"{error.message} (Left aside, since damaged: {count}, first {name}: {why})") from error
    return Planned(moment, shelf, plan)


def read_entries(vault: Vault, plan: Plan) -> Iterator[tuple[int, int, int, bytes]]:
    """The entries of a plan's replays, from the vault; what no server makes raises UnfitArchive."""
    with sound_effects():
        yield from entries_of(vault, plan)


@dataclass(frozen=True, slots=True)
class Reached:
    """The end of a walk to a moment: what there was, and when."""

    catalog: Catalog
    log_index: int
    raft_term: int
    time_ms: int


def reach(walk: Walk) -> Reached:
    """Walks to the end."""
    exhaust(walk)
    return Reached(walk.catalog, walk.log_index, walk.raft_term, walk.time_ms)


def exhaust(steps: Iterable[object]) -> None:
    """Takes all steps for what they do on the way."""
    for _ in steps:
        continue
