"""Frames: any cutting gives the same frames, sizes are bounded before anything is stored, responses are valid JSON."""

import json
import struct
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.errors import ReqlClientError, ReqlNonExistenceError, ReqlQueryLogicError, ReqlResourceLimitError
from proxy import frames
from proxy.answers import ARRAY, Answer

TOKENS = st.integers(-(2**63), 2**63 - 1)
BODIES = st.one_of(st.binary(max_size=60), st.integers(4000, 70_000).map(lambda size: b"x" * size))


def framed(token, body):
    return struct.pack("<qI", token, len(body)) + body


def pieces(data, cuts):
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[low:high] for low, high in pairwise(edges)]


def read_all(reader, chunks):
    found = []
    for chunk in chunks:
        found += reader.feed(chunk)
    return found


def parsed(frame):
    token, size = struct.unpack_from("<qI", frame)
    assert size == len(frame) - 12
    return token, json.loads(frame[12:])


@given(st.lists(st.tuples(TOKENS, BODIES), max_size=6), st.lists(st.integers(0, 1 << 30), max_size=30))
def test_any_cutting_gives_the_same_frames(queries, cuts):
    data = b"".join(framed(token, body) for token, body in queries)
    assert read_all(frames.FrameReader(), pieces(data, cuts)) == queries


@given(st.lists(st.tuples(TOKENS, st.binary(max_size=20)), max_size=4))
def test_a_byte_at_a_time(queries):
    data = b"".join(framed(token, body) for token, body in queries)
    assert read_all(frames.FrameReader(), [data[at : at + 1] for at in range(len(data))]) == queries


def test_a_trickle_of_tiny_pieces_is_kept_as_few_objects():
    body = b"ab" * 200_000
    reader = frames.FrameReader()
    reader.feed(struct.pack("<qI", 1, len(body)))
    for at in range(0, len(body) - 2, 2):
        assert reader.feed(body[at : at + 2]) == []
    assert len(reader._chunks) < 10
    assert reader.feed(body[-2:]) == [(1, body)]


@given(st.integers(100, 300), st.lists(st.integers(0, 1 << 30), max_size=8))
def test_a_query_that_is_too_large_is_skipped_and_ends_the_stream(size, cuts):
    data = framed(1, b"[5]") + framed(7, b"z" * size) + framed(2, b"[5]")
    reader = frames.FrameReader(max_query_bytes=100)
    assert read_all(reader, pieces(data, cuts)) == [(1, b"[5]")]
    assert reader.refused == (7, size)
    assert not reader.is_draining


def test_the_skipping_is_seen_while_it_lasts():
    reader = frames.FrameReader(max_query_bytes=100)
    reader.feed(struct.pack("<qI", 7, 1000) + b"z" * 999)
    assert reader.is_draining
    assert reader.refused is None
    reader.feed(b"z")
    assert reader.refused == (7, 1000)


def test_a_query_beyond_reason_is_refused_at_once():
    reader = frames.FrameReader()
    assert reader.feed(struct.pack("<qI", 7, 1 << 30)) == []
    assert reader.refused == (7, 1 << 30)
    assert reader.feed(b"z" * 1000) == []


def test_the_words_for_too_large():
    token, response = parsed(frames.too_large_frame(9, 134217728))
    text = "Query size (134217728) greater than maximum (134217727)."
    assert (token, response) == (9, {"t": 16, "r": [text], "b": []})


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"[1,5]", 1),
        (b"[1,", 1),
        (b" [ 1 , 5 ] ", 1),
        (b"[2]", 2),
        (b"[3]", 3),
        (b"[4]", 4),
        (b"[5]", 5),
        (b"[2,null,{}]", 2),
        (b"[3.0]", 3),
        (b'[4,null,{"noreply":true}]', 4),
    ],
)
def test_query_types(body, kind):
    assert frames.query_type(body) == kind


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", frames.UNPARSEABLE),
        (b"{", frames.UNPARSEABLE),
        (b"[5] x", frames.UNPARSEABLE),
        (b"\xff\xfe", frames.UNPARSEABLE),
        (b"5", "Server could not parse query: Expected a query to be an array, but found NUMBER."),
        (b'"x"', "Server could not parse query: Expected a query to be an array, but found STRING."),
        (b"null", "Server could not parse query: Expected a query to be an array, but found NULL."),
        (b"{}", "Server could not parse query: Expected a query to be an array, but found OBJECT."),
        (b"[]", "Server could not parse query: Expected 1 to 3 elements in the top-level query, but found 0."),
        (b"[5,1,{},2]", "Server could not parse query: Expected 1 to 3 elements in the top-level query, but found 4."),
        (b"[true]", "Server could not parse query: Expected a query type as a number, but found BOOL."),
        (b"[[]]", "Server could not parse query: Expected a query type as a number, but found ARRAY."),
        (b"[6]", "Server could not parse query: Unrecognized QueryType: 6."),
        (b"[-1]", "Server could not parse query: Unrecognized QueryType: -1."),
        (b"[4,1,[]]", "Server could not parse query: Expected global optargs as an object, but found ARRAY."),
    ],
)
def test_what_is_no_query_is_told_in_rethinkdbs_words(body, words):
    with pytest.raises(ReqlClientError) as caught:
        frames.query_type(body)
    assert caught.value.message == words


def test_nesting_without_end_is_a_limit_not_a_crash():
    with pytest.raises(ReqlResourceLimitError):
        frames.query_type(b"[" * 100_000 + b"]" * 100_000)


@pytest.mark.parametrize(
    ("body", "is_noreply"),
    [
        (b'[1,5,{"noreply":true}]', True),
        (b'[1,5,{"noreply":[1,true]}]', True),
        (b'[1,5,{ "db":[14,["a"]], "noreply" : true }]', True),
        (b'[1,5,{"noreply":false}]', False),
        (b'[1,5,{"noreply":"true"}]', False),
        (b'[1,5,{"noreply":1}]', False),
        (b'[1,{"noreply":true},{}]', False),
        (b'[1,{"noreply":true}]', False),
        (b'[1,"\\"noreply\\":true"]', False),
        (b'[1,5,{"noreply":true', False),
        (b"[5]", False),
    ],
)
def test_noreply_is_read_from_the_global_options_only(body, is_noreply):
    assert frames.is_noreply(body) is is_noreply


@given(TOKENS, st.sampled_from(["sequence", "partial"]), st.lists(st.integers()), st.lists(st.integers(1, 5)))
def test_stream_responses(token, kind, values, notes):
    items = [json.dumps(value).encode() for value in values]
    got = parsed(frames.answer_frame(token, Answer(kind, items, notes)))
    assert got == (token, {"t": 2 if kind == "sequence" else 3, "r": values, "n": notes})


def test_atoms_have_no_notes_and_the_fields_come_in_rethinkdbs_order():
    assert frames.answer_frame(5, Answer("atom", [b'{"a":1}']))[12:] == b'{"t":1,"r":[{"a":1}]}'
    profiled = frames.answer_frame(5, Answer("atom", [b"1"], profile=b'[{"duration(ms)":1}]'))
    assert profiled[12:] == b'{"t":1,"r":[1],"p":[{"duration(ms)":1}]}'
    profiled = frames.answer_frame(5, Answer("sequence", [b"1", b"2"], [1, 5], b"[]"))
    assert profiled[12:] == b'{"t":2,"r":[1,2],"p":[],"n":[1,5]}'


def test_fixed_responses():
    assert parsed(frames.end_frame(-1)) == (-1, {"t": 2, "r": [], "n": []})
    assert parsed(frames.wait_complete_frame(3)) == (3, {"t": 4, "r": []})
    assert parsed(frames.server_info_frame(3, b'{"id":"x"}')) == (3, {"t": 5, "r": [{"id": "x"}]})


def test_errors_carry_their_type_and_path():
    error = ReqlNonExistenceError("No such row.", (0, "index", 1))
    assert parsed(frames.error_frame(4, error)) == (
        4,
        {"t": 18, "e": 3100000, "r": ["No such row."], "b": [0, "index", 1]},
    )
    assert parsed(frames.error_frame(4, ReqlClientError("x"))) == (4, {"t": 16, "r": ["x"], "b": []})
    assert parsed(frames.error_frame(4, ReqlQueryLogicError("\ud800")))[1]["r"] == ["?"]


def test_a_response_longer_than_a_length_can_say_becomes_an_error(monkeypatch):
    monkeypatch.setattr(frames, "MAX_RESPONSE_BYTES", 100)
    for answer in (Answer("atom", [b"1" * 100]), Answer("sequence", [b"1" * 60, b"2" * 60])):
        _, response = parsed(frames.answer_frame(1, answer))
        assert (response["t"], response["e"]) == (18, 2000000)
        assert "greater than maximum (99)" in response["r"][0]


@pytest.mark.parametrize("items", [[], [b"1"], [b"1", b'{"a":[2]}', b"[]"]])
@pytest.mark.parametrize("profile", [None, b"[]"])
def test_an_array_is_sent_as_the_atom_that_it_is(items, profile):
    answer = Answer(ARRAY, items, profile=profile)
    assert frames.answer_frame(7, answer) == frames.answer_frame(7, frames.as_atom(answer))
    body = json.loads(frames.answer_frame(7, answer)[frames.HEADER_BYTES :])
    assert (body["t"], body["r"]) == (1, [[json.loads(item) for item in items]])
    assert "n" not in body


def test_other_answers_are_left_as_they_are():
    answer = Answer("sequence", [b"1"])
    assert frames.as_atom(answer) is answer


@pytest.mark.parametrize("kind", ["array", "sequence", "partial"])
@pytest.mark.parametrize("profile", [None, b"[]"])
@pytest.mark.parametrize("count", [257, 511, 512, 513, 1025])
def test_a_large_answer_in_pieces_is_its_frame(kind, profile, count):
    items = [b'"%d%b"' % (number, b"x" * (frames.LARGE_BYTES // 250)) for number in range(count)]
    answer = Answer(kind, list(items), [1], profile)
    expected = frames.answer_frame(7, answer)
    pieces = frames.answer_pieces(7, answer)
    assert pieces.size == len(expected) - frames.HEADER_BYTES
    found = list(pieces)
    assert b"".join(found) == expected
    assert len(found) == 1 + -(-count // frames.PIECE_ITEMS)
    assert answer.items == []


@pytest.mark.parametrize("count", [1, frames.PIECE_ITEMS])
def test_few_items_are_one_frame_however_large(count):
    answer = Answer("partial", [b"x" * frames.LARGE_BYTES] * count)
    assert frames.answer_pieces(7, answer) is None
    assert frames.answer_pieces(7, Answer("partial", [b"1"] * 10_000)) is None
