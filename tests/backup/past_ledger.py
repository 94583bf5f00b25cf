"""Random histories with a model beside them: what every moment has to look like when it is brought back.

One rule: the model is plain dictionaries and knows nothing of storage, blocks, slices or plans.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from backup.capture import Order, capture
from backup.manifest import LogSlice, SliceName, encode_slice
from backup.vault import Vault
from model.effect import DELETE_ROW, PUT_ROW, PUT_ROWS, Effect, Kind, encode
from model.keys import primary_key_bytes
from model.packed_rows import pack_rows
from storage.image import Image
from storage.machine import Machine
from storage.rocks import RocksEngine
from storage.rocks_options import RocksSettings

CLUSTER = "c1"
SETTINGS = RocksSettings(cache_bytes=8 << 20, memtable_bytes=1 << 20)
FIELD_B = {"function": [69, [[2, [1]], [170, [[10, [1]], "b"]]]], "multi": False, "geo": False}

Rows = dict[bytes, bytes]


@dataclass
class ModelTable:
    name: str
    database: str
    rows: Rows = field(default_factory=dict)
    indexes: dict[str, int] = field(default_factory=dict)
    hook: bool = False


@dataclass
class Model:
    """databases: uuid -> name; tables: table_id -> table."""

    databases: dict[str, str] = field(default_factory=dict)
    tables: dict[int, ModelTable] = field(default_factory=dict)

    def by_name(self) -> dict[tuple[str, str], ModelTable]:
        return {(self.databases[table.database], table.name): table for table in self.tables.values()}

    def copy(self) -> Model:
        tables = {
            table_id: ModelTable(t.name, t.database, dict(t.rows), dict(t.indexes), t.hook)
            for table_id, t in self.tables.items()
        }
        return Model(dict(self.databases), tables)


class History:
    """A log that is written entry by entry, with the machine and the model that follow it. Time: 1 s per entry."""

    def __init__(self, folder: Path, dice: random.Random) -> None:
        self.folder = folder
        self.dice = dice
        self.machine = Machine(RocksEngine(folder / "rows", SETTINGS))
        self.log: list[tuple[int, int, int, bytes]] = []
        self.model = Model()
        self.states: dict[int, Model] = {0: Model()}
        self.terms: dict[int, int] = {}
        self.raft_term = 1
        self._next_id = 1
        self._shipped = 0

    @property
    def last_index(self) -> int:
        return len(self.log)

    def time_ms(self, index: int) -> int:
        return index * 1000

    def write(self, *effects: Effect) -> int:
        """One entry; the model is kept up by the caller."""
        index = self.last_index + 1
        payload = encode(list(effects), self.time_ms(index)) if effects else b""
        self.log.append((index, self.raft_term, 0, payload))
        self.machine.apply([(index, payload)])
        self.states[index] = self.model.copy()
        return index

    # -- random steps

    def step(self) -> None:
        """Something happens: mostly writes of several writers in one entry, now and then a change of the catalog."""
        dice = self.dice
        kinds: list[tuple[float, Callable[[], list[Effect]]]] = [
            (30, self.rows),
            (2, self.packed_rows),
            (2, self.create_table),
            (1, self.drop_table),
            (1, self.alter_table),
            (1, self.create_database),
            (0.3, self.drop_database),
            (1, self.create_index),
            (0.7, self.drop_index),
            (0.7, self.set_hook),
            (1, self.new_leader),
        ]
        chosen = dice.choices([make for _, make in kinds], [weight for weight, _ in kinds])[0]
        self.write(*chosen())

    def steps(self, count: int) -> None:
        for _ in range(count):
            self.step()

    def new_leader(self) -> list[Effect]:
        self.raft_term += self.dice.randrange(1, 3)
        return []

    def rows(self) -> list[Effect]:
        effects: list[Effect] = []
        for _ in range(self.dice.randrange(1, 8)):
            if not self.model.tables:
                break
            table_id = self.dice.choice(list(self.model.tables))
            rows = self.model.tables[table_id].rows
            number = self.dice.randrange(40)
            key = primary_key_bytes(number)
            if self.dice.random() < 0.25:
                rows.pop(key, None)
                effects.append((DELETE_ROW, table_id, key))
            else:
                row = b'{"b":%d,"id":%d}' % (self.dice.randrange(5), number)
                rows[key] = row
                effects.append((PUT_ROW, table_id, key, row))
        return effects

    def packed_rows(self) -> list[Effect]:
        """Some rows of one table, in the order of their keys, as a restore into a running server writes them."""
        if not self.model.tables:
            return []
        table_id = self.dice.choice(list(self.model.tables))
        numbers = sorted(self.dice.sample(range(60), self.dice.randrange(1, 30)))
        rows = {primary_key_bytes(at): b'{"b":%d,"id":%d}' % (self.dice.randrange(5), at) for at in numbers}
        self.model.tables[table_id].rows.update(rows)
        return [(PUT_ROWS, table_id, pack_rows(list(rows), list(rows.values())))]

    def create_database(self) -> list[Effect]:
        uuid = f"d{self.dice.randrange(1 << 40):x}"
        name = f"db{self.dice.randrange(4)}"
        if name in self.model.databases.values():
            return []
        self.model.databases[uuid] = name
        return [(int(Kind.CREATE_DATABASE), uuid, name)]

    def drop_database(self) -> list[Effect]:
        if not self.model.databases:
            return []
        uuid = self.dice.choice(list(self.model.databases))
        gone = [table_id for table_id, table in self.model.tables.items() if table.database == uuid]
        for table_id in gone:
            del self.model.tables[table_id]
        del self.model.databases[uuid]
        return [*((int(Kind.DROP_TABLE), table_id) for table_id in gone), (int(Kind.DROP_DATABASE), uuid)]

    def create_table(self) -> list[Effect]:
        if not self.model.databases:
            return self.create_database()
        uuid = self.dice.choice(list(self.model.databases))
        name = f"table{self.dice.randrange(5)}"
        if (self.model.databases[uuid], name) in self.model.by_name():
            return []
        table_id, self._next_id = self._next_id, self._next_id + 1
        self.model.tables[table_id] = ModelTable(name, uuid)
        return [(int(Kind.CREATE_TABLE), table_id, f"t{table_id}", uuid, name, "id", {"durability": "hard"})]

    def drop_table(self) -> list[Effect]:
        if not self.model.tables:
            return []
        table_id = self.dice.choice(list(self.model.tables))
        del self.model.tables[table_id]
        return [(int(Kind.DROP_TABLE), table_id)]

    def alter_table(self) -> list[Effect]:
        if not self.model.tables:
            return []
        table_id = self.dice.choice(list(self.model.tables))
        table = self.model.tables[table_id]
        name, uuid = f"table{self.dice.randrange(5)}", self.dice.choice(list(self.model.databases))
        if (self.model.databases[uuid], name) in self.model.by_name():
            return []
        table.name, table.database = name, uuid
        return [(int(Kind.ALTER_TABLE), table_id, {"name": name, "database": uuid})]

    def create_index(self) -> list[Effect]:
        for table_id, table in self.model.tables.items():
            if "b" not in table.indexes:
                index_id, self._next_id = self._next_id, self._next_id + 1
                table.indexes["b"] = index_id
                return [(int(Kind.CREATE_INDEX), table_id, index_id, "b", FIELD_B)]
        return []

    def drop_index(self) -> list[Effect]:
        for table_id, table in self.model.tables.items():
            if table.indexes:
                return [(int(Kind.DROP_INDEX), table_id, table.indexes.pop("b"))]
        return []

    def set_hook(self) -> list[Effect]:
        if not self.model.tables:
            return []
        table_id = self.dice.choice(list(self.model.tables))
        table = self.model.tables[table_id]
        table.hook = not table.hook
        return [(int(Kind.SET_WRITE_HOOK), table_id, {"function": [1], "query": "x"} if table.hook else None)]

    # -- the vault

    def image(self, vault: Vault, *selection: str) -> str:
        """Takes an image of this moment."""
        index = self.last_index
        name = f"image-{index}"
        place = self.folder / f"checkpoint-{name}"
        self.machine.checkpoint(place)
        term = self.log[-1][1] if self.log else 0
        with Image(place) as image:
            capture(image, vault, Order(name, CLUSTER, term, self.time_ms(index), "test", selection), lambda *_: None)
        return name

    def ship(self, vault: Vault) -> None:
        """Ships what is not shipped yet, in slices of random length."""
        while self._shipped < self.last_index:
            first = self._shipped + 1
            last = min(self.last_index, first + self.dice.randrange(1, 30))
            part = SliceName(first, last, self.time_ms(first), self.time_ms(last))
            vault.put(part.name, encode_slice(LogSlice(CLUSTER, self.log[first - 1 : last])))
            self._shipped = last

    def close(self) -> None:
        self.machine.close()


def random_history(folder: Path, vault: Vault, seed: int, entries: int = 300) -> History:
    """A history with a few images at random moments and its whole log shipped."""
    history = History(folder, random.Random(seed))
    history.write(*history.create_database())
    history.write(*history.create_table())
    at = sorted(history.dice.sample(range(3, entries), 3))
    for stop in (*at, entries):
        history.steps(max(stop - history.last_index, 0))
        history.ship(vault)
        if stop != entries:
            history.image(vault)
    return history


def rows_in(machine: Machine) -> Iterator[tuple[tuple[str, str], Rows]]:
    """The rows of all tables of a store, by name."""
    catalog = machine.catalog
    for table in catalog.tables.values():
        name = (catalog.databases_by_uuid[table.database].name, table.name)
        yield name, dict(machine.store.scan(table.table_id))
