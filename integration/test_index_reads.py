"""Reads by indexes while rows change, against a model: what was looked up is in memory, and must not be what it was."""

import pytest
from rethinkdb import r

MIB = 1 << 20
ROWS = 300
STEPS = 4000
TABLE = r.table("rows")


class Model:
    """The rows as they are to be, and dice for what comes next."""

    def __init__(self, rng):
        self.rng = rng
        self.rows = {}

    def value(self):
        """What rows are found by: few enough that many share one, of types whose keys have other lengths."""
        dice = self.rng
        return dice.choice(
            [dice.randrange(20), "x" * dice.randrange(20), dice.random() < 0.5, "a\0b", [dice.randrange(3)]]
        )

    def row(self):
        dice = self.rng
        groups = [self.value() for _ in range(dice.randrange(4))]
        return {"id": dice.randrange(ROWS), "group": self.value(), "number": dice.randrange(3), "groups": groups}

    def found(self, index, value):
        """The ids of the rows that an index has under a value."""
        wanted = repr(value)
        keys_of = {
            "group": lambda row: [row["group"]],
            "both": lambda row: [[row["group"], row["number"]]],
            "groups": lambda row: row["groups"],
        }[index]
        return sorted(row["id"] for row in self.rows.values() for key in keys_of(row) if repr(key) == wanted)

    def change(self, conn):
        dice, rows = self.rng, self.rows
        kind = dice.random()
        if kind < 0.5:
            key, group = dice.randrange(ROWS), self.value()
            TABLE.get(key).update({"group": group}).run(conn)
            if key in rows:
                rows[key] = {**rows[key], "group": group}
        elif kind < 0.9:
            new = {row["id"]: row for row in (self.row() for _ in range(dice.choice((1, 1, 30))))}
            TABLE.insert(list(new.values()), conflict="replace", durability="soft").run(conn)
            rows.update(new)
        elif kind < 0.99:
            key = dice.randrange(ROWS)
            TABLE.get(key).delete().run(conn)
            rows.pop(key, None)
        else:
            group = self.value()
            gone = self.found("group", group)
            assert TABLE.get_all(group, index="group").delete().run(conn)["deleted"] == len(gone)
            for key in gone:
                del rows[key]

    def look_up(self, conn):
        index = self.rng.choice(("group", "both", "groups"))
        value = [self.value(), self.rng.randrange(3)] if index == "both" else self.value()
        found = TABLE.get_all(value, index=index)["id"].run(conn)
        assert sorted(found) == self.found(index, value), (index, value)
        row = self.rng.choice(list(self.rows.values()))
        assert row in list(TABLE.get_all(row["group"], index="group").run(conn))


@pytest.mark.parametrize("cache_bytes", [8 * MIB, 4096 * MIB])
def test_a_lookup_is_what_the_rows_are(start, rng, cache_bytes):
    server = start("--cache-bytes", str(cache_bytes))
    model = Model(rng)
    with server.connect() as conn:
        r.table_create("rows").run(conn)
        TABLE.index_create("group").run(conn)
        TABLE.index_create("both", [r.row["group"], r.row["number"]]).run(conn)
        TABLE.index_create("groups", multi=True).run(conn)
        TABLE.index_wait().run(conn)
        while not model.rows:
            model.change(conn)
        for step in range(STEPS):
            if rng.random() < 0.4 or not model.rows:
                model.change(conn)
            else:
                model.look_up(conn)
            if step == STEPS // 2:
                TABLE.index_drop("groups").run(conn)
                TABLE.index_create("groups", multi=True).run(conn)
                TABLE.index_wait().run(conn)
