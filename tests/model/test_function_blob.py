"""Function blobs: round trips, the exact bytes of RethinkDB 2.4, older versions, hostile input."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.errors import UnfitArchive
from model.function_blob import (
    INDEX_PREFIX,
    NO_VALUE,
    WRITE_HOOK_PREFIX,
    FunctionBlob,
    decode_index_function,
    decode_write_hook,
    encode_index_function,
    encode_write_hook,
    field_function,
    from_func_term,
)

scalars = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=8)
terms = st.recursive(
    scalars | st.builds(lambda number: [10, [number]], st.integers(1, 3)) | st.just([13, []]),
    lambda inner: st.one_of(
        st.dictionaries(st.text(max_size=5), inner, max_size=3),
        st.builds(lambda number, args: [number, args], st.integers(14, 197), st.lists(inner, max_size=3)),
        st.builds(
            lambda number, args, options: [number, args, options],
            st.integers(14, 197),
            st.lists(inner, max_size=3),
            st.dictionaries(st.text(max_size=5), inner, max_size=2),
        ),
        st.builds(lambda number: [number], st.integers(14, 197)),
        st.builds(lambda values: [1, values], st.lists(scalars, max_size=3)),
    ),
    max_leaves=12,
)
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3), max_leaves=5)
functions = st.one_of(
    st.builds(
        FunctionBlob,
        arg_ids=st.lists(st.integers(-100, 2**40), max_size=3).map(tuple),
        body=terms,
        captured=st.dictionaries(st.integers(-5, 2**40), values, max_size=3),
        implicit_depth=st.integers(2, 4) | st.just(0),
        multi=st.booleans(),
        geo=st.booleans(),
    ),
    st.builds(FunctionBlob, body=terms, implicit_depth=st.just(1), implicit=values | st.just(NO_VALUE)),
    st.builds(FunctionBlob, js_source=st.text(max_size=40), js_timeout_ms=st.integers(0, 2**63)),
)


@given(functions)
def test_an_index_function_comes_back(function: FunctionBlob) -> None:
    assert decode_index_function(encode_index_function(function)) == function


@given(functions)
def test_a_write_hook_comes_back(function: FunctionBlob) -> None:
    hook = FunctionBlob(
        **{name: getattr(function, name) for name in function.__slots__ if name not in ("multi", "geo")}
    )
    assert decode_write_hook(encode_write_hook(hook)) == hook


@given(functions, st.integers(0, 10**6), st.integers(0, 255))
def test_a_changed_byte_never_breaks_the_reader(function: FunctionBlob, place: int, byte: int) -> None:
    blob = bytearray(encode_index_function(function))
    blob[place % len(blob)] = byte
    try:
        decode_index_function(bytes(blob))
    except UnfitArchive:
        return


@given(functions)
def test_every_cut_is_refused(function: FunctionBlob) -> None:
    blob = encode_index_function(function)
    for size in range(0, len(blob), 7):
        with pytest.raises(UnfitArchive):
            decode_index_function(blob[:size])


def stored(
    tree: Any, *, cluster: int = 9, reql: int = 7, tail: bytes = b"\x00\x00", args: bytes | None = None
) -> bytes:
    """An index blob put together by hand, field by field, from RethinkDB's sources."""
    text = json.dumps(tree, separators=(",", ":")).encode() + b"\0"
    return b"".join(
        [
            b"$reql_index_function$",
            bytes([cluster, reql, reql, reql]),
            b"\x00",  # ReQL
            b"\x00",  # no captured variables
            b"\x00\x00\x00\x00",  # implicit depth
            args if args is not None else b"\x01" + (1).to_bytes(8, "little"),
            len(text).to_bytes(4, "little"),
            text,
            b"\x07\x00\x00\x00",  # backtrace id
            tail,
        ]
    )


# index_create('x', lambda row: row['a'] + 1), as the driver's query numbers its frames
SUM_TREE = [24, [[170, [[10, [[1, 1, 9]], 8], [1, "a", 10]], 7], [1, 1, 11]], 6]


def test_a_blob_of_rethinkdb_2_4_is_read() -> None:
    assert decode_index_function(stored(SUM_TREE)) == FunctionBlob(
        arg_ids=(1,), body=[24, [[170, [[10, [1]], "a"]], 1]]
    )


@pytest.mark.parametrize("cluster", [7, 8, 9])
def test_every_version_with_a_json_tree_is_read(cluster: int) -> None:
    blob = stored(SUM_TREE, cluster=cluster, reql=cluster - 2, tail=b"\x01\x01")
    function = decode_index_function(blob)
    assert (function.multi, function.geo) == (True, True)


def test_the_blob_of_a_field_index_byte_for_byte() -> None:
    """What `index_create('a')` gives in RethinkDB 2.4: variable -19, and generated terms without frames."""
    tree = b'[31,[[10,[[1,-19,0]],0],[1,"a",0]],0]\0'
    expected = (
        b"$reql_index_function$"
        + bytes([9, 7, 7, 7, 0, 0, 0, 0, 0, 0])
        + b"\x01\xed\xff\xff\xff\xff\xff\xff\xff"
        + len(tree).to_bytes(4, "little")
        + tree
        + b"\x00\x00\x00\x00\x00\x00"
    )
    assert encode_index_function(field_function("a")) == expected


def test_the_layout_has_the_size_a_published_blob_has() -> None:
    """rethinkdb#4868 shows 100 bytes for an index on the field `a` of RethinkDB 2.1, whose tree is a protobuf of

    50 bytes (34 and a frame of 4 bytes for each of 4 terms): everything around the tree takes 50 bytes too.
    """
    blob = encode_index_function(field_function("a"))
    tree = b'[31,[[10,[[1,-19,0]],0],[1,"a",0]],0]\0'
    assert len(blob) - len(tree) == 50


def test_objects_options_and_datums_keep_their_form() -> None:
    tree = [
        2,
        [
            [3, {"k": [1, None, 3], "l": [3, {}, 4]}, 2],
            [3, 5],
            [1, [1, "two"], 6],
            [1, {"x": 1}, 7],
            [78, [[1, 5, 9]], {"index": [1, "i", 10]}, 8],
            [152, {"squash": [1, True, 12]}, 11],
            [103, 13],
        ],
        1,
    ]
    function = decode_index_function(stored(tree))
    assert function.body == [
        2,
        [
            {"k": None, "l": {}},
            {},
            [1, [1, "two"]],
            [1, {"x": 1}],
            [78, [5], {"index": "i"}],
            [152, {"squash": True}],
            [103],
        ],
    ]


def test_a_write_hook_has_no_version() -> None:
    tree = b"[10,[[1,3,0]],0]\0"
    arguments = b"\x03" + b"".join(number.to_bytes(8, "little") for number in (1, 2, 3))
    blob = WRITE_HOOK_PREFIX + bytes(6) + arguments + len(tree).to_bytes(4, "little") + tree + bytes(4)
    function = decode_write_hook(blob)
    assert function == FunctionBlob(arg_ids=(1, 2, 3), body=[10, [3]])
    assert encode_write_hook(function) == blob


def test_javascript() -> None:
    blob = INDEX_PREFIX + bytes([9, 7, 7, 7, 1]) + b"\x03a+b" + (5000).to_bytes(8, "little") + bytes(4) + b"\x01\x00"
    function = decode_index_function(blob)
    assert function == FunctionBlob(js_source="a+b", js_timeout_ms=5000, multi=True)
    assert function.func_term() == [11, ["a+b"], {"timeout": 5.0}]
    assert encode_index_function(function) == blob


def test_captured_values_become_constants() -> None:
    function = FunctionBlob(
        arg_ids=(-19,),
        body=[24, [[10, [2]], [170, [[10, [-19]], [10, [[1, 3]]]]], [13, []], {"k": [10, [2]]}], {"o": [10, [2]]}],
        captured={2: [1, {"a": None}], 3: "field"},
        implicit_depth=1,
        implicit=9,
    )
    constant = [2, [1, {"a": None}]]
    assert decode_index_function(encode_index_function(function)).func_term() == [
        69,
        [[2, [-19]], [24, [constant, [170, [[10, [-19]], "field"]], 9, {"k": constant}], {"o": constant}]],
    ]


def test_func_terms_and_blobs() -> None:
    term = [69, [[2, [1]], [170, [[10, [1]], "a"]]]]
    function = from_func_term(term, multi=True)
    assert function == FunctionBlob(arg_ids=(1,), body=[170, [[10, [1]], "a"]], multi=True)
    assert function.func_term() == term
    assert from_func_term([69, [[2, [[1, 4]]], 5]]).arg_ids == (4,)
    with pytest.raises(ValueError, match="not a function term"):
        from_func_term([10, [1]])


@pytest.mark.parametrize("version", [0, 1])
def test_blobs_before_1_14_say_what_to_do(version: int) -> None:
    with pytest.raises(UnfitArchive, match=r"may be updated by importing into RethinkDB 2\.0"):
        decode_index_function(stored(SUM_TREE, cluster=version))


def test_indexes_before_1_16_say_what_to_do() -> None:
    with pytest.raises(UnfitArchive, match=r"may be updated by importing into RethinkDB 2\.1"):
        decode_index_function(stored(SUM_TREE, reql=1))


@pytest.mark.parametrize(("cluster", "release"), [(2, "1.14"), (4, "1.16"), (6, "2.1")])
def test_protobuf_trees_are_refused_with_their_release(cluster: int, release: str) -> None:
    with pytest.raises(UnfitArchive, match=f"written by RethinkDB {release}"):
        decode_index_function(stored(SUM_TREE, cluster=cluster, reql=2))


def nested(depth: int) -> Any:
    tree: Any = [1, 1, 0]
    for _ in range(depth):
        tree = [23, [tree], 0]
    return tree


@pytest.mark.parametrize(
    "blob",
    [
        b"",
        b"$reql_index_function",
        WRITE_HOOK_PREFIX + bytes(40),
        INDEX_PREFIX,
        INDEX_PREFIX + bytes([10, 7, 7, 7]),
        stored(SUM_TREE, reql=8),
        stored(SUM_TREE, tail=b"\x00"),
        stored(SUM_TREE, tail=b"\x02\x00"),
        stored(SUM_TREE, tail=b"\x00\x00\x00"),
        stored(SUM_TREE, args=b"\xff\xff\xff\xff\xff\xff\xff\xff\x7f"),
        stored({}),
        stored(None),
        stored([]),
        stored([24]),
        stored(["24", [], 0]),
        stored([True, [], 0]),
        stored([24, [], None]),
        stored([24, {}, [], 0]),
        stored([24, {}, {}, 0]),
        stored([24, [], [], 0]),
        stored([24, 5, 0]),
        stored([1, 0]),
        stored([1, 5, 6, 0]),
        stored([24, [5], 0]),
        stored(nested(300)),
        stored(SUM_TREE).replace(b"[24", b"{24"),
        INDEX_PREFIX + bytes(17 << 20),
    ],
)
def test_hostile_blobs_are_refused(blob: bytes) -> None:
    with pytest.raises(UnfitArchive):
        decode_index_function(blob)


def test_deep_functions_come_back() -> None:
    function = decode_index_function(stored(nested(250)))
    assert decode_index_function(encode_index_function(function)) == function


def test_a_deep_json_text_is_refused_before_it_is_walked() -> None:
    blob = stored(None).replace(b"null\0", b"[" * 5)
    with pytest.raises(UnfitArchive):
        decode_index_function(blob)


def test_the_words_of_rethinkdb() -> None:
    with pytest.raises(UnfitArchive, match=r"^Cannot create an sindex except from a reql_index_function returned from"):
        decode_index_function(b"garbage")
    with pytest.raises(UnfitArchive, match=r"^Binary blob passed to index create could not be interpreted as a"):
        decode_index_function(INDEX_PREFIX + b"\x09")
    with pytest.raises(UnfitArchive, match=r"^Cannot create a write hook except from a reql_write_hook_function"):
        decode_write_hook(b"garbage")


def test_lines_in_base64_do_not_matter() -> None:
    """RethinkDB breaks base64 into lines of 76 characters; archives hold it so."""
    blob = encode_index_function(field_function("a" * 90))
    text = base64.b64encode(blob).decode()
    lines = "\r\n".join(text[start : start + 76] for start in range(0, len(text), 76))
    assert decode_index_function(base64.b64decode(lines)).body[1][1] == "a" * 90
