"""The binary form in which RethinkDB hands out the functions of secondary indexes and write hooks.

`index_status` and `get_write_hook` give it to drivers, `rethinkdb dump` keeps it in its archives, and
`index_create` and `set_write_hook` take it back: so RewindDB reads what any RethinkDB since 1.16 wrote,
and writes what RethinkDB 2.4 reads. One rule: a blob may come from anybody, so its length and its depth
are bounded before its content is looked at, and whatever is wrong with it is an UnfitArchive.

    index  "$reql_index_function$"       int8 cluster version (2 = 1.14 … 9 = 2.4), 3 int8 ReQL versions,
                                         function, int8 multi, int8 geo (geo is missing in 1.14)
    hook   "$reql_write_hook_function$"  function (always as version 2.4 writes it)

    function   int8 0 = ReQL: scope, argument names, term tree, uint32 backtrace id
               int8 1 = JavaScript: string source, uint64 timeout in ms, uint32 backtrace id
    scope      varint count, (int64 name, datum)*, uint32 implicit depth, if that is 1: int8, datum if it is 1
    arguments  varint count, int64*
    term tree  int32 length, JSON text with a NUL at its end (since 2.2); a protobuf before that

In the JSON every term ends with the id of its backtrace frame: `[type, [args], {optargs}, id]`, and a
datum is `[1, value, id]`. In `FunctionBlob.body` those ids are gone: it is what a driver would send.
Source: RethinkDB's `rdb_protocol/btree.cc` (serialize_sindex_info), `wire_func.cc`, `var_types.cc`,
`term_storage.cc`, `version.hpp`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from model.errors import UnfitArchive
from model.rdb_serial import SerialReader, datum_bytes, string_bytes, varint_bytes

INDEX_PREFIX = b"$reql_index_function$"
WRITE_HOOK_PREFIX = b"$reql_write_hook_function$"
BLOB_BYTES_MAX = 16 << 20
TERM_DEPTH_MAX = 256
NO_VALUE: Any = object()

_CLUSTER_1_14, _CLUSTER_2_2, _CLUSTER_2_4 = 2, 7, 9
_REQL_1_16, _REQL_2_4 = 2, 7
_RELEASES = ("1.13", "1.13", "1.14", "1.15", "1.16", "2.0", "2.1", "2.2", "2.3", "2.4")
# The four term numbers that have a meaning for the form itself; all others pass through unseen.
_DATUM, _MAKE_ARRAY, _MAKE_OBJ, _VAR, _IMPLICIT_VAR, _FUNC = 1, 2, 3, 10, 13, 69
# The variable that RethinkDB uses for an index on a field, and the term that reads the field.
_FIELD_VARIABLE, _GET_FIELD = -19, 31


@dataclass(frozen=True, slots=True)
class FunctionBlob:
    """A stored function. Either `arg_ids` and `body` (ReQL) or `js_source` is set.

    body: term tree as a driver sends it. captured: values of variables from around the function, by
    variable number. implicit: what `r.row` was around the function, or NO_VALUE. multi, geo: of the
    index; False for a write hook.
    """

    arg_ids: tuple[int, ...] = ()
    body: Any = None
    captured: Mapping[int, Any] = field(default_factory=dict)
    implicit_depth: int = 0
    implicit: Any = NO_VALUE
    js_source: str | None = None
    js_timeout_ms: int = 0
    multi: bool = False
    geo: bool = False

    def func_term(self) -> list[Any]:
        """The function as a term that needs nothing from around it: captured values are put in as constants."""
        if self.js_source is not None:
            return [11, [self.js_source], {"timeout": self.js_timeout_ms / 1000}]
        body = self.body
        if self.captured or self.implicit is not NO_VALUE:
            body = _with_constants(body, self.captured, self.implicit)
        return [_FUNC, [[_MAKE_ARRAY, list(self.arg_ids)], body]]


def from_func_term(term: Any, multi: bool = False, geo: bool = False) -> FunctionBlob:
    """The blob of a function given as a driver's term `[69, [[2, [ids]], body]]`; ValueError for another term."""
    match term:
        case [69, [[2, [*ids]], body], *_] | [69, [[1, [*ids]], body], *_]:
            arg_ids = tuple(item[1] if isinstance(item, list) else item for item in ids)
            return FunctionBlob(arg_ids=tuple(int(item) for item in arg_ids), body=body, multi=multi, geo=geo)
    raise ValueError("not a function term")


def field_function(name: str, multi: bool = False, geo: bool = False) -> FunctionBlob:
    """What RethinkDB makes of `index_create(name)` without a function: an index on the field of that name."""
    body = [_GET_FIELD, [[_VAR, [_FIELD_VARIABLE]], name]]
    return FunctionBlob(arg_ids=(_FIELD_VARIABLE,), body=body, multi=multi, geo=geo)


def decode_index_function(blob: bytes) -> FunctionBlob:
    """The function in an index's blob. Raises UnfitArchive, with RethinkDB's words where it has some."""
    if not blob.startswith(INDEX_PREFIX):
        raise UnfitArchive(
            "Cannot create an sindex except from a reql_index_function returned from "
            "`index_status` in the field `function`."
        )
    reader = _reader(blob, INDEX_PREFIX)
    try:
        version = _cluster_version(reader)
        for _ in range(3):
            _reql_version(reader)
        function = _read_function(reader, version)
        multi = reader.byte(0, 1, "multi") == 1
        geo = version > _CLUSTER_1_14 and reader.byte(0, 1, "geo") == 1
        _expect_end(reader)
    except ObsoleteFunction:
        raise
    except UnfitArchive as error:
        raise UnfitArchive(
            f"Binary blob passed to index create could not be interpreted as a reql_index_function ({error.message})."
        ) from error
    return FunctionBlob(**function, multi=multi, geo=geo)


def decode_write_hook(blob: bytes) -> FunctionBlob:
    """The function in a write hook's blob. Raises UnfitArchive."""
    if not blob.startswith(WRITE_HOOK_PREFIX):
        raise UnfitArchive(
            "Cannot create a write hook except from a reql_write_hook_function returned from `get_write_hook`."
        )
    reader = _reader(blob, WRITE_HOOK_PREFIX)
    function = _read_function(reader, _CLUSTER_2_4)
    _expect_end(reader)
    return FunctionBlob(**function)


def encode_index_function(function: FunctionBlob) -> bytes:
    """The blob that RethinkDB 2.4 gives out and takes."""
    head = bytes([_CLUSTER_2_4, _REQL_2_4, _REQL_2_4, _REQL_2_4])
    return INDEX_PREFIX + head + _function_bytes(function) + bytes([function.multi, function.geo])


def encode_write_hook(function: FunctionBlob) -> bytes:
    return WRITE_HOOK_PREFIX + _function_bytes(function)


class ObsoleteFunction(UnfitArchive):
    """The blob is fine, but of a RethinkDB too old; the message says what to do."""


def _reader(blob: bytes, prefix: bytes) -> SerialReader:
    if len(blob) > BLOB_BYTES_MAX:
        raise UnfitArchive(f"A function blob of {len(blob)} bytes; the limit is {BLOB_BYTES_MAX}.")
    return SerialReader(blob, len(prefix))


def _expect_end(reader: SerialReader) -> None:
    if reader.remaining:
        raise UnfitArchive(f"{reader.remaining} bytes follow the end of the function.")


def _cluster_version(reader: SerialReader) -> int:
    version = reader.take(1)[0]
    if version < _CLUSTER_1_14:
        raise ObsoleteFunction(
            "Attempted to import a RethinkDB 1.13 secondary index, which is no longer supported.  This secondary "
            "index may be updated by importing into RethinkDB 2.0."
        )
    if version > _CLUSTER_2_4:
        raise UnfitArchive("Unrecognized cluster serialization version.")
    return version


def _reql_version(reader: SerialReader) -> None:
    version = reader.byte(0, _REQL_2_4, "The ReQL version")
    if version < _REQL_1_16:
        raise ObsoleteFunction(
            "Attempted to import a secondary index from before RethinkDB 1.16, which is no longer supported.  This "
            "secondary index may be updated by importing into RethinkDB 2.1."
        )


def _read_function(reader: SerialReader, version: int) -> dict[str, Any]:
    """The fields of a FunctionBlob that hold the function itself."""
    if version < _CLUSTER_2_2:
        # The term tree is a protobuf there. Its readers were RethinkDB 2.1 to 2.4, which write the new form.
        raise ObsoleteFunction(
            f"The function was written by RethinkDB {_RELEASES[version]}, in a form used until 2.1. Restore the "
            "archive into RethinkDB 2.4 and dump it there, or create the index anew."
        )
    if reader.byte(0, 1, "The kind of function") == 1:
        source = reader.text()
        timeout_ms = reader.integer(8)
        reader.integer(4)
        return {"js_source": source, "js_timeout_ms": timeout_ms}
    captured = {reader.integer(8, signed=True): reader.datum() for _ in range(reader.count())}
    implicit_depth = reader.integer(4)
    implicit = NO_VALUE
    if implicit_depth == 1 and reader.byte(0, 1, "Whether a row is captured"):
        implicit = reader.datum()
    arg_ids = tuple(reader.integer(8, signed=True) for _ in range(reader.count()))
    body = _read_term_tree(reader)
    reader.integer(4)
    return {
        "arg_ids": arg_ids,
        "body": body,
        "captured": captured,
        "implicit_depth": implicit_depth,
        "implicit": implicit,
    }


def _read_term_tree(reader: SerialReader) -> Any:
    size = reader.integer(4, signed=True)
    text = reader.take(size)
    try:
        tree = orjson.loads(text.rstrip(b"\0"))
    except orjson.JSONDecodeError as error:
        raise UnfitArchive(f"The term tree is not JSON: {error}.") from error
    return _without_backtraces(tree, 0)


def _without_backtraces(term: Any, depth: int) -> Any:
    """A stored term as a driver would send it. Scalars and objects lose their wrapping, other datums keep it."""
    if depth > TERM_DEPTH_MAX:
        raise UnfitArchive(f"The function is nested deeper than {TERM_DEPTH_MAX} terms.")
    if not isinstance(term, list) or not 2 <= len(term) <= 4 or type(term[0]) is not int or type(term[-1]) is not int:
        raise UnfitArchive("A term of the function is not [type, arguments, options, backtrace].")
    number = term[0]
    if number == _DATUM:
        if len(term) != 3:
            raise UnfitArchive(f"Expected 3 items in array, but found {len(term)}.")
        _bound_datum(term[1], 0)
        return [_DATUM, term[1]] if isinstance(term[1], list | dict) else term[1]
    bare: list[Any] = [number]
    for part in term[1:-1]:
        if isinstance(part, list) and len(bare) == 1:
            bare.append([_without_backtraces(item, depth + 1) for item in part])
        elif isinstance(part, dict) and not (len(bare) > 1 and isinstance(bare[-1], dict)):
            bare.append({key: _without_backtraces(item, depth + 1) for key, item in part.items()})
        else:
            raise UnfitArchive("A term of the function holds something that is neither arguments nor options.")
    if number == _MAKE_OBJ and len(bare) <= 2 and not (len(bare) == 2 and isinstance(bare[1], list)):
        return bare[1] if len(bare) == 2 else {}
    return bare


def _bound_datum(value: Any, depth: int) -> None:
    if depth > TERM_DEPTH_MAX:
        raise UnfitArchive(f"A value in the function is nested deeper than {TERM_DEPTH_MAX} levels.")
    if isinstance(value, list):
        for item in value:
            _bound_datum(item, depth + 1)
    elif isinstance(value, dict):
        for item in value.values():
            _bound_datum(item, depth + 1)


def _function_bytes(function: FunctionBlob) -> bytes:
    if function.js_source is not None:
        source = string_bytes(function.js_source.encode("utf-8"))
        return b"\x01" + source + function.js_timeout_ms.to_bytes(8, "little") + bytes(4)
    scope = varint_bytes(len(function.captured))
    for variable in sorted(function.captured):
        scope += variable.to_bytes(8, "little", signed=True) + datum_bytes(function.captured[variable])
    scope += function.implicit_depth.to_bytes(4, "little")
    if function.implicit_depth == 1:
        scope += b"\0" if function.implicit is NO_VALUE else b"\x01" + datum_bytes(function.implicit)
    arguments = varint_bytes(len(function.arg_ids))
    arguments += b"".join(arg_id.to_bytes(8, "little", signed=True) for arg_id in function.arg_ids)
    tree = _json_bytes(_with_backtraces(function.body)) + b"\0"
    return b"\0" + scope + arguments + len(tree).to_bytes(4, "little") + tree + bytes(4)


def _json_bytes(tree: list[Any]) -> bytes:
    try:
        return orjson.dumps(tree)
    except orjson.JSONEncodeError:  # orjson stops at 254 levels; a tree of TERM_DEPTH_MAX terms has twice as many
        return json.dumps(tree, ensure_ascii=False, separators=(",", ":")).encode("utf-8")


def _with_backtraces(term: Any) -> list[Any]:
    """A driver's term as RethinkDB stores it, with frame 0, the empty one, everywhere.

    RethinkDB looks frames up in the query that uses the blob, where any other number would point at a
    foreign frame or at none.
    """
    if isinstance(term, dict):
        return [_MAKE_OBJ, {key: _with_backtraces(item) for key, item in term.items()}, 0]
    if not isinstance(term, list):
        return [_DATUM, term, 0]
    if term[0] == _DATUM:
        return [_DATUM, term[1], 0]
    stored: list[Any] = [term[0]]
    for part in term[1:]:
        if isinstance(part, dict):
            stored.append({key: _with_backtraces(item) for key, item in part.items()})
        else:
            stored.append([_with_backtraces(item) for item in part])
    return [*stored, 0]


def _with_constants(term: Any, captured: Mapping[int, Any], implicit: Any) -> Any:
    """`term` with captured variables and a captured row replaced by what they were."""
    if isinstance(term, dict):
        return {key: _with_constants(item, captured, implicit) for key, item in term.items()}
    if not isinstance(term, list) or term[0] == _DATUM:
        return term
    if term[0] == _VAR and (variable := _variable(term)) in captured:
        return _constant(captured[variable])
    if term[0] == _IMPLICIT_VAR and implicit is not NO_VALUE:
        return _constant(implicit)
    changed: list[Any] = [term[0]]
    for part in term[1:]:
        if isinstance(part, dict):
            changed.append(_with_constants(part, captured, implicit))
        else:
            changed.append([_with_constants(item, captured, implicit) for item in part])
    return changed


def _variable(term: list[Any]) -> Any:
    number = term[1][0]
    return number[1] if isinstance(number, list) else number


def _constant(value: Any) -> Any:
    if isinstance(value, list):
        return [_MAKE_ARRAY, [_constant(item) for item in value]]
    if isinstance(value, dict):
        return {key: _constant(item) for key, item in value.items()}
    return value
