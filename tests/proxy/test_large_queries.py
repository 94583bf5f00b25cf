"""Large queries: parsed in pieces, they are what they are parsed as in one."""

from __future__ import annotations

import json

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from model.errors import ReqlClientError, ReqlResourceLimitError
from proxy import large_queries
from proxy.frames import parse_query
from proxy.large_queries import LARGE_QUERY_BYTES, loads_large

JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(1 << 70), 1 << 70), st.floats(allow_nan=False), st.text()),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=2), inner, max_size=3)),
    max_leaves=6,
)
ARRAYS = st.builds(lambda term, items: [term, items], st.one_of(st.just(2), JSON), st.lists(JSON, max_size=12))
TERMS = st.builds(
    lambda term, first, array, more: [term, [first, array], *more], JSON, JSON, ARRAYS, st.lists(JSON, max_size=2)
)
QUERIES = st.builds(lambda kind, term, more: [kind, term, *more], JSON, TERMS, st.lists(JSON, max_size=2))
BAD_ITEMS = st.sampled_from(
    [
        b"01",
        b"1e999",
        b"-",
        b'"\\ud800"',
        b'"\xff"',
        b"NaN",
        b"[1,]",
        b'{"a":1,}',
        b"1 2",
        b"",
        b"[" * 2000,
        b"\t3 ",
        b"1]",
    ]
)


def outcome(loads, text):
    """What it is, with its numbers' kinds; None if it is no JSON."""
    try:
        return repr(loads(text))
    except orjson.JSONDecodeError:
        return None


@pytest.fixture(scope="module", autouse=True)
def small_pieces():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(large_queries, "PIECE_BYTES", 24)
        yield


@given(st.one_of(QUERIES, QUERIES, JSON), st.booleans())
def test_a_query_in_pieces_is_the_query(query, is_spaced):
    text = json.dumps(query, indent=1 if is_spaced else None, ensure_ascii=False).encode()
    assert outcome(loads_large, text) == outcome(orjson.loads, text)


@given(st.lists(JSON, max_size=6), BAD_ITEMS, st.lists(JSON, max_size=6), st.booleans())
@example([1], b"1e999", [], False)
def test_what_is_no_json_is_none_in_pieces(before, bad, after, is_key):
    items = b",".join([*map(safe, before), bad, *map(safe, after)])
    for text in (
        b'[1,[56,[[15,["t"]],[2,[%b]]],{}],{}]' % items,
        b'[1,[56,[[15,["t"]],[2,[1]]],{"a":[%b]}],{}]' % items,
        b'[1,[56,[[15,["t"]],[2,[1]]]],{"a":[%b]}]' % items,
        b"[1,[56,[[%b],[2,[1]]]]]" % items,
    ):
        assert outcome(loads_large, text) == outcome(orjson.loads, text)


def safe(value):
    return json.dumps(value, ensure_ascii=False).encode()


class TestParseQuery:
    ROW = b'{"id":%d,"text":"' + b"x" * 1000 + b'"}'

    def insert(self, *rows):
        count = LARGE_QUERY_BYTES // 1000
        items = b",".join([*(self.ROW % at for at in range(count)), *rows])
        return b'[1,[56,[[15,["t"]],[2,[%b]]],{"durability":"soft"}],{"db":1}]' % items

    def test_takes_large_ones_in_pieces(self, monkeypatch):
        body = self.insert(b'{"id":-1}')
        whole = orjson.loads(body)
        monkeypatch.setattr(large_queries, "PIECE_BYTES", 1 << 16)
        largest = []
        real = orjson.loads
        monkeypatch.setattr(large_queries.orjson, "loads", lambda text: largest.append(len(text)) or real(text))
        assert parse_query(body) == whole
        assert max(largest) < 1 << 17

    @pytest.mark.parametrize("bad", [b"1e999", b'"\\ud800"', b"{", b"01"])
    def test_says_of_a_bad_one_what_it_says_of_any(self, bad):
        with pytest.raises(ReqlClientError, match="failed to deserialize query"):
            parse_query(self.insert(bad))

    def test_of_one_with_a_deep_row_is_what_the_standard_library_makes_of_it(self):
        deep = b"[" * 1500 + b"]" * 1500
        try:
            assert parse_query(self.insert(deep))[1][1][1][1][-1]
        except ReqlResourceLimitError as error:
            assert error.message == "Query is nested too deeply."
