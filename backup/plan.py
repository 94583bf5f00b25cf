"""What a restore will do, found out before anything is written: which image, which slices of the log, up to where.

One rule: pure. Every gap and every missing piece is an error here, with its place, and never later.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from backup.manifest import ImageManifest, SliceName
from model.errors import RewindError

NEWEST: Final = "latest"


class NoBaseImage(RewindError):
    """There is no image at or before the wanted moment."""


class LogGap(RewindError):
    """Entries of the log that are needed are not in the vault."""


class EndsEarly(RewindError):
    """The vault ends before the wanted moment."""


@dataclass(frozen=True, slots=True)
class Stop:
    """The wanted moment: exactly one of them. before_index: the state just before that entry."""

    index: int | None = None
    time_ms: int | None = None
    newest: bool = False


@dataclass(frozen=True, slots=True)
class Replay:
    """Apply the entries first to last of a slice. until_ms: stop before the first entry that is later."""

    piece: SliceName
    first_index: int
    last_index: int


@dataclass(frozen=True, slots=True)
class Plan:
    """Install `image`, then replay. until_ms: entries made after this time are left out, and all that follow."""

    image: ImageManifest
    replays: tuple[Replay, ...]
    until_ms: int | None

    @property
    def last_index(self) -> int:
        """The last entry that may be applied."""
        return self.replays[-1].last_index if self.replays else self.image.log_index

    def describe(self) -> list[str]:
        """The plan in words, a line each."""
        image = self.image
        lines = [f"install image {image.image} (log index {image.log_index}, {image.rows} rows)"]
        for replay in self.replays:
            lines.append(f"replay {replay.piece.name}: entries {replay.first_index} to {replay.last_index}")
        if self.until_ms is not None:
            lines.append("stop before the first entry that is later than the wanted time")
        return lines


@dataclass(frozen=True, slots=True)
class Mark:
    """At `time_ms` the last entry of the log was `index`: how a quiet log says that nothing happened."""

    index: int
    time_ms: int


def covers(selection: Collection[str], wanted: Collection[str]) -> bool:
    """Whether an image of a selection holds all that is wanted; both are "db" and "db.table" names, none is all."""
    if not selection:
        return True
    return bool(wanted) and all(name in selection or name.partition(".")[0] in selection for name in wanted)


def plan_restore(
    images: Iterable[ImageManifest],
    slices: Sequence[SliceName],
    stop: Stop,
    marks: Iterable[Mark] = (),
    wanted: Collection[str] = (),
) -> Plan:
    """The shortest way to the wanted moment. Raises NoBaseImage, LogGap or EndsEarly.

    wanted: "db" and "db.table" names, if not everything is; then images of parts that cover them will do too.
    """
    fit = [image for image in images if covers(image.selection, wanted)]
    base = _base(fit, stop)
    chain, end = _chain(slices, base.log_index, stop)
    if stop.index is not None and end < stop.index:
        raise _missing(slices, end, stop.index)
    if stop.newest and any(piece.first_index > end + 1 for piece in slices):
        raise _missing(slices, end, end + 1)
    if stop.time_ms is not None and not _reaches(chain, base, stop.time_ms):
        quiet_until_ms = max((mark.time_ms for mark in marks if mark.index == end), default=0)
        if quiet_until_ms < stop.time_ms:
            _check_time(slices, end)
    return Plan(base, tuple(chain), stop.time_ms)


def _base(images: Sequence[ImageManifest], stop: Stop) -> ImageManifest:
    fit = [
        image
        for image in images
        if stop.newest
        or (stop.index is not None and image.log_index <= stop.index)
        or (stop.time_ms is not None and image.time_ms <= stop.time_ms)
    ]
    if fit:
        return max(fit, key=lambda image: image.log_index)
    if not images:
        raise NoBaseImage(
            "The vault holds no image of the whole server, nor of all that is wanted.",
            "Take one with `rewinddb backup`.",
        )
    oldest = min(images, key=lambda image: image.log_index)
    raise NoBaseImage(
        f"The oldest image in the vault is of log index {oldest.log_index}, which is after the wanted moment.",
        "`rewinddb backups` lists the moments that can be restored.",
    )


def _chain(slices: Iterable[SliceName], have: int, stop: Stop) -> tuple[list[Replay], int]:
    """The replays that follow entry `have` without a gap, and the last entry they reach."""
    steps: list[Replay] = []
    for piece in sorted(slices, key=lambda piece: (piece.first_index, -piece.last_index)):
        if piece.last_index <= have:
            continue
        if piece.first_index > have + 1:
            break
        if stop.index is not None and have >= stop.index:
            break
        if stop.time_ms is not None and piece.first_ms > stop.time_ms and piece.first_index == have + 1:
            break
        last = piece.last_index if stop.index is None else min(piece.last_index, stop.index)
        steps.append(Replay(piece, have + 1, last))
        have = last
    return steps, have


def _reaches(chain: Sequence[Replay], base: ImageManifest, time_ms: int) -> bool:
    last_ms = chain[-1].piece.last_ms if chain else base.time_ms
    return last_ms >= time_ms


def _check_time(slices: Iterable[SliceName], end: int) -> None:
    """The chain ends before the wanted time: fine only if the next entry is there, since then it is later."""
    later = [piece for piece in slices if piece.first_index > end]
    if not later:
        raise EndsEarly(
            f"The vault holds the log up to entry {end}; nothing says what happened between it and the wanted time.",
            "Restore to `latest`, or wait until the log is shipped.",
        )
    following = min(later, key=lambda piece: piece.first_index)
    if following.first_index != end + 1:
        raise LogGap(
            f"The vault lacks the log entries {end + 1} to {following.first_index - 1}, which the wanted time needs.",
            "`rewinddb backups` lists the moments that can be restored.",
        )


def _missing(slices: Iterable[SliceName], end: int, wanted: int) -> RewindError:
    later = [piece.first_index for piece in slices if piece.first_index > end]
    if later:
        return LogGap(f"The vault lacks the log entries {end + 1} to {min(later) - 1}.")
    return EndsEarly(
        f"The vault holds the log up to entry {end}; entry {wanted} is not there.",
        "`rewinddb backups` lists the moments that can be restored.",
    )


@dataclass(frozen=True, slots=True)
class Range:
    """Moments that can be restored: from an image on, without a gap."""

    first_index: int
    last_index: int
    first_ms: int
    last_ms: int


def restorable_ranges(images: Iterable[ImageManifest], slices: Iterable[SliceName]) -> list[Range]:
    """All moments that `plan_restore` can reach, as ranges that do not touch."""
    pieces = list(slices)
    found: list[Range] = []
    for image in sorted((image for image in images if image.is_whole), key=lambda image: image.log_index):
        chain, end = _chain(pieces, image.log_index, Stop(newest=True))
        last_ms = max((replay.piece.last_ms for replay in chain), default=image.time_ms)
        if found and found[-1].last_index >= image.log_index:
            if end > found[-1].last_index:
                found[-1] = Range(found[-1].first_index, end, found[-1].first_ms, last_ms)
        else:
            found.append(Range(image.log_index, end, image.time_ms, max(last_ms, image.time_ms)))
    return found
