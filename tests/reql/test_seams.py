"""Seams: rows that are joined as texts are what merging the data gives, or are left to those who take them apart."""

from __future__ import annotations

from typing import Final

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from rethinkdb import r

from model.datum import dumps, loads, merge
from proxy.reql.merging import Merger, rows_fields
from proxy.reql.seams import MOST_FALSE_PLACES, MOST_NAMES, seam

NAMES = st.sampled_from(["$a", "A", "a", "b", "c", "id", "n", "z", "%b", "é", 'x"y', "a\\b", "", "\n", ","])
VALUES = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-5, 5),
        st.floats(-1, 1),
        st.sampled_from(["", "é", ",", "}", '","n":1', '{"n":', ',"n":', "\\", '"', "%b"]),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(NAMES, inner, max_size=3)),
    max_leaves=5,
)
ROW = st.dictionaries(NAMES, VALUES, max_size=8)


def fields(row):
    (found,) = rows_fields([dumps(row)])
    return found


def alike(row):
    """Rows with the names of one, and now and then other ones."""
    same = st.fixed_dictionaries(dict.fromkeys(sorted(row), VALUES))
    return st.one_of(same, same, ROW.map(lambda other: {**other, **row}), ROW)


@given(st.data(), ROW, ROW, st.booleans())
def test_a_seam_joins_rows_as_merging_does_or_not_at_all(data, base, others, is_over):
    found = seam(list(loads(dumps(base))), list(fields(others)), is_over)
    if found is None:
        return
    for _ in range(4):
        text, other = data.draw(alike(base)), data.draw(alike(others))
        parts = fields(other)
        if tuple(parts) != found.others:
            continue
        joined = found.join(dumps(text), parts)
        pair = (text, other) if is_over else (other, text)
        assert joined is None or joined == dumps(merge(*pair))


@given(ROW, ROW, st.booleans())
def test_the_pair_that_showed_a_seam_is_joined_at_it_unless_objects_meet(base, others, is_over):
    found = seam(list(loads(dumps(base))), list(fields(others)), is_over)
    if found is not None:
        joined = found.join(dumps(base), fields(others))
        clash = any(type(others[name]) is dict for name in set(base) & set(others))
        deceives = dumps(base).count(b",") > len(base)  # more than once, it may be
        assert clash or deceives or joined is not None
        assert not clash or joined is None


class TestJoin:
    ROW: Final = {"a": {"n": 1, "k": 2}, "b": "x", "n": 3, "z": 4}

    def test_is_not_deceived_by_what_looks_like_the_place(self):
        found = seam(["a", "b", "n", "z"], ["m"], is_over=False)
        other = fields({"m": 0})
        assert found.join(dumps({**self.ROW, "a": 1}), other) == b'{"a":1,"b":"x","m":0,"n":3,"z":4}'
        assert found.join(dumps(self.ROW), other) == b'{"a":{"k":2,"n":1},"b":"x","m":0,"n":3,"z":4}'
        for deceiving in ({"b": 0, "n": 1}, {"a": {"b": 0, "n": 1}}, [{"a": 1, "n": 2}] * 2, '","n":', "{,"):
            for name in ("a", "b"):
                row = {**self.ROW, name: deceiving}
                assert found.join(dumps(row), other) == dumps({**row, "m": 0})

    def test_gives_up_after_a_few_false_places(self):
        found = seam(["a", "n"], ["m"], is_over=False)
        assert found.join(dumps({"a": [self.ROW] * (MOST_FALSE_PLACES + 1), "n": 0}), fields({"m": 0})) is None

    @pytest.mark.parametrize("more", [{"m": 9}, {"c": 1}, {"aa": 1}, {"": 0}])
    def test_refuses_a_row_with_more_fields_up_to_the_place(self, more):
        found = seam(["a", "b", "n", "z"], ["m"], is_over=False)
        assert found.join(dumps({**self.ROW, **more}), fields({"m": 0})) is None

    @pytest.mark.parametrize("missing", ["a", "b", "n"])
    def test_refuses_a_row_with_fewer_fields_up_to_the_place(self, missing):
        found = seam(["a", "b", "n", "z"], ["m"], is_over=False)
        row = {name: value for name, value in self.ROW.items() if name != missing}
        assert found.join(dumps(row), fields({"m": 0})) is None

    def test_does_not_look_behind_the_last_place(self):
        found = seam(["a", "b", "n", "z"], ["m"], is_over=False)
        row = {"a": 1, "b": 2, "n": 3, "y": {"m": 1}, "zz": [{"n": 1}]}
        assert found.join(dumps(row), fields({"m": 0})) == dumps({**row, "m": 0})

    def test_replaces_what_the_other_row_has_too(self):
        found = seam(["a", "b", "n", "z"], ["a", "n", "zz"], is_over=True)
        assert found.join(dumps(self.ROW), fields({"a": 1, "n": 2, "zz": 3})) == b'{"a":1,"b":"x","n":2,"z":4,"zz":3}'

    def test_leaves_objects_that_meet_to_merging(self):
        for is_over in (True, False):
            found = seam(["a", "b", "n", "z"], ["a"], is_over)
            assert found.join(dumps(self.ROW), fields({"a": {"x": 1}})) is None

    def test_a_name_that_is_sure_is_not_looked_for(self):
        found = seam(["a", "id"], ["c", "id"], is_over=False, sure="id")
        assert found.join(b'{"a":1,"id":2}', fields({"c": 3, "id": 4})) == b'{"a":1,"c":3,"id":2}'


class TestSeam:
    @pytest.mark.parametrize(
        ("base", "others"),
        [
            (["$reql_type$", "a"], ["b"]),
            (["a"], ["$reql_type$"]),
            (["a"], ["$a"]),
            (["a"], []),
            ([], ["a"]),
            (["", "a"], ["b"]),
            (["b", "a"], ["c"]),
            (["é"], ["z", "ü"]),
            (['"'], ["a"]),
            ([f"a{at:03}" for at in range(MOST_NAMES + 1)], ["b"]),
        ],
    )
    def test_there_is_none_where_it_cannot_be_proven(self, base, others):
        assert seam(base, others, is_over=False) is None

    def test_there_is_none_if_every_field_is_sure_to_be_covered(self):
        assert seam(["a", "id"], ["id"], is_over=False, sure="id") is None
        assert seam(["a", "id"], ["id"], is_over=True, sure="id") is not None


ROWS = st.lists(st.dictionaries(NAMES, VALUES, max_size=4), min_size=1, max_size=3)


@given(ROWS, ROWS, st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=10, max_size=40))
@example([{"a": {"x": 1}}], [{"a": {"y": 2}}], [(0, 0)] * 20)
@example([{"a": 1}], [{"b": {"x": 2}, "c": "long"}], [(0, 0)] * 20)
@example([{"a": 1, "c": "long"}, {"a": 2}], [{"b": {"x": 2}}, {"c": 1}], [(0, 0)] * 20 + [(1, 1)] * 20)
def test_a_merger_gives_what_merging_the_data_gives(lefts, rights, pairs):
    merger = Merger("id")
    names = [f"{at % len(rights)}" for _, at in pairs]
    rows = [{**lefts[at % len(lefts)], "id": number} for number, (at, _) in enumerate(pairs)]
    for row in rights:
        row.pop("id", None)
    matches = {str(at): [dumps({**row, "id": at}), dumps({"id": at})] for at, row in enumerate(rights)}
    expected = [merge(row, loads(text)) for row, name in zip(rows, names, strict=True) for text in matches[name]]
    given_rows = [dumps(row) for row in rows]
    got = []
    for at in range(0, len(rows), 8):
        piece = slice(at, at + 8)
        texts = merger.texts(given_rows[piece], None, names[piece], matches)
        wanted = expected[2 * at : 2 * at + 16]
        assert texts is None or [loads(text) for text in texts] == wanted
        assert texts is None or texts == [dumps(row) for row in wanted]
        got += texts or []
    plain = all(type(value) is not dict for row in rights for value in row.values())
    assert not plain or len(got) == len(expected)


class TestMerger:
    LONG = "x" * 100

    def joined(self, lefts, rights, pieces=3):
        """Whether the pieces behind the first one took seams only, and that they are right."""
        merger = Merger("id")
        for at in range(pieces):
            rows = [{**left, "id": number} for number, left in enumerate(lefts)]
            matches = {name: [dumps({**right, "id": name})] for name, right in enumerate(rights)}
            names = [at % len(rights) for at in range(len(rows))]
            got = merger.texts([dumps(row) for row in rows], None, names, matches)
            assert got == [dumps({**row, **rights[name], "id": name}) for row, name in zip(rows, names, strict=True)]
        return merger

    def test_puts_the_shorter_row_into_the_longer_one(self):
        small, large = {"doc": "1"}, {"a": self.LONG, "x": 1}
        assert self.joined([small] * 8, [large]).takes_lefts_apart
        assert not self.joined([large] * 8, [small]).takes_lefts_apart

    def test_merges_the_odd_row_out(self):
        small, large = {"doc": "1"}, {"a": self.LONG, "x": 1}
        odd = {"b": 1}
        for lefts, rights in (
            ([small] * 7 + [odd], [large]),
            ([large] * 7 + [odd], [small]),
            ([small] * 8, [large, large, large, {**large, "b": 1}]),
            ([large] * 8, [small, small, small, odd]),
        ):
            self.joined(lefts, rights)

    def test_looks_for_another_seam_where_rows_are_others_now(self):
        merger = Merger("id")
        for name in ("a", "b", "c", "d", "e", "f"):
            rows = [dumps({name: at, "id": at}) for at in range(8)]
            got = merger.texts(rows, None, ["r"] * 8, {"r": [dumps({"id": 1, "long": self.LONG})]})
            assert got == [dumps({name: at, "id": 1, "long": self.LONG}) for at in range(8)]

    def test_gives_up_what_is_no_plain_row(self):
        small, large = {"doc": "1"}, {"a": self.LONG, "x": 1}
        time = b'{"$reql_type$":"TIME","epoch_time":1,"timezone":"+00:00"}'
        for lefts, right in ((small, large), (large, small)):
            merger = self.joined([lefts] * 8, [right])
            good = dumps({**right, "id": 1})
            for odd in (time, b"5", b"[]", b'"x"', b'{"a":', b"null"):
                assert merger.texts([odd], None, [1], {1: [good]}) is None
        assert Merger("id").texts([dumps(small)], None, [1], {1: [time]}) is None


def test_rows_of_many_shapes_are_zipped_as_their_data_are(world_of_module):
    world = world_of_module
    for name in ("lefts", "rights"):
        if name in world.machine.catalog.databases["test"].tables:
            world.run(r.table_drop(name))
    long = "x" * 300
    few = [
        {"id": at, "name": f"n{at}", "both": {"right": at} if at % 5 == 4 else at, **({"odd": at} if at % 3 else {})}
        for at in range(40)
    ]
    many = [
        {"id": at, "ref": at * 7 % 43, "text": long, "both": {"left": at} if at % 4 else at, f"f{at % 2}": [at]}
        for at in range(400)
    ]
    world.make_table("lefts", many)
    world.make_table("rights", few)
    for left, right, by in (("lefts", "rights", "ref"), ("rights", "lefts", "id")):
        rows = r.table(left).order_by(index="id")
        texts = rows.eq_join(by, r.table(right)).zip()
        data = rows.map(lambda row: row).eq_join(by, r.table(right)).zip()
        assert world.start(texts).items == world.start(data).items
