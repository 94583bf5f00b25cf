"""What may leave a vault: images, slices of the log, what interrupted backups left. Found out before any is deleted.

One rule: pure. Whatever a promise covers stays: a count, an age, a window in which every moment can be restored, a
minimum of images, a hold. With no promise at all nothing leaves.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Final

from backup.manifest import ImageManifest, SliceName
from model.errors import BadSetting, RewindError

DAY_MS: Final = 86_400_000


class Promised(RewindError):
    """Something that was to be deleted is covered by a promise."""


@dataclass(frozen=True, slots=True)
class Policy:
    """What a vault keeps. An image stays as long as any of them covers it; None covers nothing.

    keep_images: the newest so many. keep_days: those not older. window_days: what restores every moment of the last
    days. minimum_images: the newest so many stay whatever else is said, also of an explicit request.
    """

    keep_images: int | None = None
    keep_days: float | None = None
    window_days: float | None = None
    minimum_images: int = 1

    @property
    def is_empty(self) -> bool:
        """Whether it promises nothing, so that nothing may be judged superfluous."""
        return self.keep_images is None and self.keep_days is None and self.window_days is None


POLICY_FIELDS: Final = tuple(field.name for field in fields(Policy))


def policy_from(plain: Mapping[str, Any]) -> Policy:
    """The policy in a vault's row. Raises BadSetting."""
    unknown = set(plain) - set(POLICY_FIELDS)
    if unknown:
        raise BadSetting(f"A retention has no field `{min(unknown)}`; it may have: {', '.join(POLICY_FIELDS)}.")
    given = {name: value for name, value in plain.items() if value is not None}
    for name, value in given.items():
        is_whole = name in ("keep_images", "minimum_images")
        is_right = isinstance(value, int) or (isinstance(value, float) and not is_whole)
        if isinstance(value, bool) or not is_right or value < 1:
            raise BadSetting(f"`{name}` of a retention is {'a whole number' if is_whole else 'a number'}, at least 1.")
    return Policy(**given)


@dataclass(frozen=True, slots=True)
class Expiry:
    """What is to be deleted. kept: image -> why it stays."""

    images: tuple[str, ...]
    slices: tuple[SliceName, ...]
    kept: Mapping[str, str]

    def describe(self) -> list[str]:
        """The plan in words, a line each."""
        lines = [f"delete image {image}" for image in self.images]
        if self.slices:
            first, last = self.slices[0].first_index, self.slices[-1].last_index
            lines.append(f"delete {len(self.slices)} slices of the log: entries {first} to {last}")
        lines += [f"keep image {image}: {why}" for image, why in self.kept.items()]
        return lines


def plan_expiry(
    images: Sequence[ImageManifest],
    slices: Sequence[SliceName],
    held: Collection[str],
    policy: Policy,
    now_ms: int,
) -> Expiry:
    """What the policy lets go of. The log stays from the oldest image on that stays for another reason than a hold."""
    if policy.is_empty:
        return Expiry((), (), {image.image: "no retention is set" for image in images})
    reasons = promises(images, held, policy, now_ms)
    leaving = tuple(image.image for image in images if image.image not in reasons)
    based = [image for image in images if image.is_whole and image.image in reasons and reasons[image.image] != _HELD]
    floor = min((image.log_index for image in based), default=0)
    return Expiry(leaving, tuple(piece for piece in slices if piece.last_index <= floor), reasons)


_HELD: Final = "it is held"


def promises(images: Sequence[ImageManifest], held: Collection[str], policy: Policy, now_ms: int) -> dict[str, str]:
    """The images that must stay, with the reason. Partial images count by themselves: per selection."""
    reasons: dict[str, str] = {}
    groups: dict[tuple[str, ...], list[ImageManifest]] = {}
    for image in images:
        groups.setdefault(tuple(sorted(image.selection)), []).append(image)
    for selection, group in groups.items():
        newest_first = sorted(group, key=lambda image: (image.log_index, image.image), reverse=True)
        for rank, image in enumerate(newest_first):
            why = _why(image, rank, policy, now_ms)
            if why:
                reasons[image.image] = why
        if policy.window_days is not None and not selection:
            reasons |= _window(newest_first, now_ms - int(policy.window_days * DAY_MS), reasons)
    for image in images:
        if image.image in held:
            reasons.setdefault(image.image, _HELD)
    return reasons


def _why(image: ImageManifest, rank: int, policy: Policy, now_ms: int) -> str:
    if rank < policy.minimum_images:
        return f"the newest {policy.minimum_images} always stay"
    if policy.keep_images is not None and rank < policy.keep_images:
        return f"the newest {policy.keep_images} are kept"
    if policy.keep_days is not None and image.time_ms >= now_ms - policy.keep_days * DAY_MS:
        return f"it is not older than {policy.keep_days:g} days"
    return ""


def _window(newest_first: Sequence[ImageManifest], begin_ms: int, known: Mapping[str, str]) -> dict[str, str]:
    """The image that the window begins with, and those inside it."""
    found = {}
    for image in newest_first:
        if image.image not in known:
            found[image.image] = "the recovery window needs it"
        if image.time_ms <= begin_ms:
            break
    return found


def check_deletion(
    chosen: Collection[str], images: Sequence[ImageManifest], held: Collection[str], policy: Policy, now_ms: int
) -> None:
    """Raises Promised if one of the images that are to be deleted by request has to stay."""
    known = {image.image for image in images}
    reasons = promises(images, held, policy, now_ms)
    for image in chosen:
        if image not in known:
            raise Promised(f"There is no image {image} in the vault.")
        if image in reasons:
            raise Promised(
                f"The image {image} cannot be deleted: {reasons[image]}.",
                "Change the vault's retention, or release the hold, if it is to go.",
            )
