"""Words for a moment, and the moment they mean: `latest`, `index:N`, a time, `before-drop:DB.TABLE`, `image:NAME`.

One rule: nothing is guessed. A time without a zone, one that a clock change skips or has twice, and a table that
was never dropped are errors, not the nearest thing that would do.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from backup.manifest import ImageManifest, SliceName
from backup.plan import NEWEST, Plan, Stop, plan_restore
from backup.selection import TableName, parse_name
from backup.shelf import Shelf
from model.catalog import Catalog
from model.effect import DELETE_ROW, PUT_ROW, PUT_ROWS, Effect, Kind, decode, decode_stored
from model.errors import BadSetting, RewindError, UnfitArchive
from storage.documents import is_moot

FORMS: Final = (
    "latest, index:N, image:NAME, before-drop:DB.TABLE, a time such as 2026-03-01T12:00:00Z or "
    '"2026-03-01 12:00 Europe/Berlin", or a time ago such as -10m or -1h30m.'
)
_AGO: Final = re.compile(r"-((?:\d+[smhdw])+)\Z")
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_NAMED_ZONE: Final = re.compile(r"(.+?)\s+([A-Za-z][A-Za-z0-9_+-]*(?:/[A-Za-z0-9_+-]+)*)\Z")
_ROW_KINDS: Final = (PUT_ROW, DELETE_ROW, PUT_ROWS)


class NeverDropped(RewindError):
    """What a vault's log holds does not say that the table was dropped."""


@dataclass(frozen=True, slots=True)
class Moment:
    """A wanted moment as it was written: exactly one of the fields says which, `text` is for people."""

    text: str
    newest: bool = False
    index: int | None = None
    time_ms: int | None = None
    before_drop: TableName | None = None
    image: str | None = None


def parse_moment(text: str, now_ms: int) -> Moment:
    """The moment that a user's words mean; `now_ms` is what a time ago counts from. Raises BadSetting."""
    words = text.strip()
    if words in (NEWEST, "now", "newest"):
        return Moment(NEWEST, newest=True)
    kind, colon, rest = words.partition(":")
    if colon and kind == "index":
        if not rest.isdigit():
            raise BadSetting(f"{words!r} has no log index behind `index:`.")
        return Moment(words, index=int(rest))
    if colon and kind == "image":
        return Moment(words, image=rest)
    if colon and kind == "before-drop":
        return Moment(words, before_drop=parse_name(rest))
    if found := _AGO.match(words.removeprefix("now")):
        return Moment(words, time_ms=now_ms - _ago_ms(found[1]))
    return Moment(words, time_ms=parse_time_ms(words))


def _ago_ms(text: str) -> int:
    total = timedelta()
    for number, unit in re.findall(r"(\d+)([smhdw])", text):
        total += timedelta(**{_UNITS[unit]: int(number)})
    return total // timedelta(milliseconds=1)


def parse_time_ms(text: str) -> int:
    """A time with a zone (ISO 8601, or followed by the zone's name) in milliseconds since 1970. Raises BadSetting."""
    named = _NAMED_ZONE.match(text)
    written, zone_name = (named[1], named[2]) if named and named[2].upper() != "Z" else (text, None)
    try:
        time = datetime.fromisoformat(written.replace(" Z", "Z"))
    except ValueError:
        raise BadSetting(f"{text!r} names no moment.", f"Give {FORMS}") from None
    if zone_name is not None:
        if time.tzinfo is not None:
            raise BadSetting(f"{text!r} has two time zones.")
        time = _in_zone(time, zone_name)
    if time.tzinfo is None:
        raise BadSetting(
            f"{text!r} has no time zone.",
            f"Write {written}Z for UTC, {written}+01:00, or {written} Europe/Berlin.",
        )
    return (time - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)


def _in_zone(time: datetime, name: str) -> datetime:
    try:
        zone = UTC if name.upper() in ("UTC", "GMT") else ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise BadSetting(f"There is no time zone {name!r}.", "Names are such as Europe/Berlin.") from None
    placed = time.replace(tzinfo=zone)
    other = placed.replace(fold=1)
    if placed.utcoffset() == other.utcoffset():
        return placed
    if placed.astimezone(UTC).astimezone(zone).replace(tzinfo=None) != time:
        raise BadSetting(f"{time} does not exist in {name}: the clocks skip it.")
    raise BadSetting(
        f"{time} comes twice in {name}, since the clocks are put back.",
        f"Say which: {time.isoformat()}{_offset(placed)} or {time.isoformat()}{_offset(other)}.",
    )


def _offset(time: datetime) -> str:
    return time.isoformat()[-6:]


def format_time(time_ms: int) -> str:
    """A time for people and for JSON: ISO 8601 in UTC, to the millisecond."""
    return datetime.fromtimestamp(time_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


# --- the log as a walk through catalogs


@dataclass(frozen=True, slots=True)
class Step:
    """One entry of the log. `effects` are all of them; `catalog_effects` those that changed the catalog."""

    log_index: int
    raft_term: int
    time_ms: int
    effects: list[Effect]
    catalog_effects: list[Effect]


class Walk:
    """Goes along the entries of a plan, one after the other, and keeps the catalog as it is after each of them.

    `catalog` is of the entry given last, `before` is called with a catalog effect that is about to be applied.
    unpacks: whether rows that the log holds packed come one by one, as most want them.
    """

    def __init__(self, plan: Plan, entries: Iterable[tuple[int, int, int, bytes]], unpacks: bool = True) -> None:
        self._decode = decode if unpacks else decode_stored
        self.catalog = Catalog()
        for effect in plan.image.catalog:
            self.catalog.apply(effect)
        self.log_index = plan.image.log_index
        self.raft_term = plan.image.raft_term
        self.time_ms = plan.image.time_ms
        self.before: Callable[[int, Effect], None] = lambda log_index, effect: None
        self._entries = entries

    def __iter__(self) -> Iterator[Step]:
        for log_index, raft_term, time_ms, payload in self._entries:
            effects = self._decode(payload).effects if payload else []
            try:
                changing = [
                    effect for effect in effects if effect[0] not in _ROW_KINDS and self._take(log_index, effect)
                ]
            except (LookupError, TypeError, ValueError, AttributeError) as error:
                raise UnfitArchive(f"Log entry {log_index} holds an effect that cannot be: {error!r}.") from error
            self.log_index, self.raft_term, self.time_ms = log_index, raft_term, time_ms or self.time_ms
            yield Step(log_index, raft_term, time_ms, effects, changing)

    def _take(self, log_index: int, effect: Effect) -> bool:
        """Applies a catalog effect; whether it changed anything."""
        if is_moot(self.catalog, effect):
            return False
        self.before(log_index, effect)
        self.catalog.apply(effect)
        return True


@dataclass(frozen=True, slots=True)
class Drop:
    """A table was dropped by the entry `log_index`."""

    log_index: int
    table_id: int
    uuid: str
    name: TableName


def drops_in(walk: Walk) -> Iterator[Drop]:
    """All drops of tables on a walk, in the order of the log; a database's drop drops its tables first."""
    found: list[Drop] = []

    def before(log_index: int, effect: Effect) -> None:
        kind, catalog = effect[0], walk.catalog
        if kind == Kind.DROP_TABLE:
            gone = [catalog.tables[effect[1]]]
        elif kind == Kind.DROP_DATABASE:
            gone = list(catalog.databases_by_uuid[effect[1]].tables.values())
        else:
            return
        for table in gone:
            name = TableName(catalog.databases_by_uuid[table.database].name, table.name)
            found.append(Drop(log_index, table.table_id, table.uuid, name))

    walk.before = before
    for _ in walk:
        yield from found
        found.clear()


# --- from a moment to what a plan stops at


ReadEntries = Callable[[Plan], Iterable[tuple[int, int, int, bytes]]]
"""Gives (log_index, raft_term, time_ms or 0, payload) of a plan's replays: `backup.rebuild.entries_of` on a vault."""


def plan_moment(shelf: Shelf, moment: Moment, read: ReadEntries, wanted: Collection[str] = ()) -> Plan:
    """The plan for a moment. Raises what `plan_restore` raises, NeverDropped or UnfitArchive.

    wanted: "db" and "db.table" names, if not everything is. An image asked for by name gives what it has.
    """
    stop = stop_of(shelf, moment, read)
    images: Sequence[ImageManifest] = shelf.images
    if moment.image is not None:
        images = (image_named(shelf, moment.image),)
        wanted = wanted or images[0].selection
    return plan_restore(images, shelf.slices, stop, shelf.marks, wanted)


def stop_of(shelf: Shelf, moment: Moment, read: ReadEntries) -> Stop:
    """What a plan for the moment stops at; reads the log where only its effects can tell."""
    if moment.before_drop is not None:
        return Stop(index=last_drop(shelf, moment.before_drop, read).log_index - 1)
    if moment.image is not None:
        return Stop(index=image_named(shelf, moment.image).log_index)
    if moment.newest:
        return Stop(newest=True)
    return Stop(index=moment.index, time_ms=moment.time_ms)


def image_named(shelf: Shelf, name: str) -> ImageManifest:
    """The image of that name. Raises UnfitArchive."""
    for image in shelf.images:
        if image.image == name:
            return image
    for damaged, why in shelf.damaged:
        if f"/{name}/" in damaged:
            raise UnfitArchive(why)
    raise UnfitArchive(f"The vault holds no image {name!r}.", "`rewinddb backups` lists them.")


def last_drop(shelf: Shelf, name: TableName, read: ReadEntries) -> Drop:
    """The newest drop of a table, or of any table of a database, that the log in a vault tells of.

    Looks from the newest image back, so that a drop of today is found by reading today's log. Raises NeverDropped.
    """
    until: int | None = None
    for image in sorted((image for image in shelf.images if image.is_whole), key=lambda image: -image.log_index):
        plan = chain_from(image, shelf.slices, until)
        found = [
            drop
            for drop in drops_in(Walk(plan, read(plan), unpacks=False))
            if drop.name.database == name.database and name.table in (None, drop.name.table)
        ]
        if found:
            return found[-1]
        until = image.log_index
    what = "database" if name.table is None else "table"
    raise NeverDropped(
        f"The log in the vault does not tell of a drop of the {what} {name}.",
        "Give a time or a log index at which it was still there; `rewinddb backups` lists what can be restored.",
    )


def chain_from(image: ImageManifest, slices: Iterable[SliceName], until: int | None = None) -> Plan:
    """The plan from an image on, as far as the log goes without a gap, but not beyond entry `until`."""
    pieces = list(slices)
    end = image.log_index
    for piece in sorted(pieces, key=lambda piece: (piece.first_index, -piece.last_index)):
        if piece.first_index > end + 1:
            break
        end = max(end, piece.last_index)
    return plan_restore([image], pieces, Stop(index=end if until is None else min(end, until)))
