"""Terms on types: type_of, coerce_to, binary, minval, maxval (terms/type_manip.cc, datum_terms.cc).

One rule: the name of a value's type is made in one place, `name_of`.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any, Final

from model import datum as d
from model.errors import ReqlError
from model.function_blob import from_func_term
from model.pretty_query import term_text
from model.pseudo_binary import binary_bytes, make_binary
from model.utf8 import as_text
from proxy.reql.ids import Term
from proxy.reql.registry import LAST, TERMS, fail, term
from proxy.reql.streams import Stream, as_stream, is_sequence, to_list
from proxy.reql.terms.javascript import JavascriptFunc
from proxy.reql.values import (
    Db,
    Func,
    Grouped,
    Selection,
    SingleSelection,
    Table,
    TableSlice,
    Value,
    as_datum,
    as_string,
    check_array_size,
)

DATA: Final = frozenset({"NULL", "BINARY", "BOOL", "NUMBER", "STRING", "ARRAY", "OBJECT", "MINVAL", "MAXVAL"})
OTHERS: Final = frozenset(
    {
        "DB", "TABLE", "TABLE_SLICE", "SELECTION<STREAM>", "SELECTION<ARRAY>", "STREAM", "SELECTION<OBJECT>", "DATUM",
        "FUNCTION", "GROUPED_DATA",
    }
)  # fmt: skip
_NUMBER: Final = re.compile(
    r"\s*[+-]?(\d+\.?\d*([eE][+-]?\d+)?|\.\d+([eE][+-]?\d+)?|inf(inity)?|nan)\Z", re.I | re.ASCII
)
_HEX: Final = re.compile(r"\s*[+-]?0x([0-9a-f]+\.?[0-9a-f]*|\.[0-9a-f]+)(p[+-]?\d+)?\Z", re.I | re.ASCII)


def name_of(env: Any, value: Any) -> str:
    """The type of any value as `type_of` and `info` give it."""
    if not isinstance(value, Value):
        return d.type_name(value)
    if isinstance(value, Stream):
        return "GROUPED_STREAM" if value.grouped else "STREAM"
    if isinstance(value, Selection):
        return "SELECTION<ARRAY>" if value.stream.is_array else "SELECTION<STREAM>"
    if isinstance(value, Func):
        return "FUNCTION"
    names: dict[type, str] = {
        Db: "DB",
        Table: "TABLE",
        TableSlice: "TABLE_SLICE",
        SingleSelection: "SELECTION<OBJECT>",
        Grouped: "GROUPED_DATA",
    }
    return names[value.__class__]


@term(Term.TYPE_OF, "typeof", "1", grouped="never")
def type_of(env: Any, value: Any) -> str:
    return name_of(env, value)


def _extremum(id: Term, value: Any) -> None:
    @term(id, id.name.lower(), "0")
    def extremum(env: Any) -> Any:
        return value


_extremum(Term.MINVAL, d.MINVAL)
_extremum(Term.MAXVAL, d.MAXVAL)


@term(Term.BINARY, "binary", "1", takes=(as_datum,))
def binary(env: Any, value: Any) -> dict[str, Any]:
    """A binary, or the UTF-8 bytes of a string."""
    if d.is_ptype(value, d.BINARY):
        return value  # type: ignore[no-any-return]
    d.expect(value, "STRING")
    return make_binary(value.encode())


# ---- coerce_to -------------------------------------------------------------------------------------------------


def _start_name(value: Any) -> str:
    """What a value is to coerce_to: pseudo-types but binaries are objects, a row's selection is its row."""
    return "BINARY" if d.is_ptype(value, d.BINARY) else d.raw_type_name(value)


def _is_convertible(env: Any, value: Any, target: str) -> bool:
    """Whether the value already counts as a `target` that is no datum (val_t::type_t::is_convertible)."""
    kinds: dict[str, Any] = {
        "DB": Db,
        "TABLE": Table,
        "TABLE_SLICE": (Table, TableSlice),
        "SELECTION<STREAM>": (Table, TableSlice, Selection),
        "SELECTION<OBJECT>": SingleSelection,
        "FUNCTION": Func,
        "GROUPED_DATA": Grouped,
    }
    if target in kinds:
        return isinstance(value, kinds[target])
    is_datum = not isinstance(value, Value) or isinstance(value, SingleSelection)
    return is_datum or (target == "STREAM" and is_sequence(value))


@term(Term.COERCE_TO, "coerce_to", "2", takes=(None, as_string))
def coerce_to(env: Any, value: Any, target: str) -> Any:
    name = target.translate(_UPPER)
    if name not in DATA and name not in OTHERS:
        fail(f"Unknown Type: {name}")
    if name in OTHERS and name != "SELECTION<ARRAY>":
        if _is_convertible(env, value, name):
            return value
    elif name == "SELECTION<ARRAY>" and name_of(env, value) == name:
        return value
    if isinstance(value, Value) and not isinstance(value, SingleSelection):
        return _coerce_value(env, value, name)
    return _coerce_datum(env, as_datum(env, value), name, value)


def _coerce_last(env: Any, value: Any, target: str) -> Any:
    """As `coerce_to`; but the rows of an array may come as they are, since nobody but the answer looks at them."""
    if target.translate(_UPPER) == "ARRAY" and is_sequence(value):
        stream = as_stream(env, value)
        if not stream.grouped:
            stream.is_array = True
            return stream
    return coerce_to(env, value, target)


LAST[Term.COERCE_TO] = replace(TERMS[Term.COERCE_TO], body=_coerce_last)

_UPPER: Final = {ord(letter): letter.upper() for letter in "abcdefghijklmnopqrstuvwxyz"}


def _refuse(start: str, name: str, value: Any) -> Any:
    try:
        d.fail_typed(value, f"Cannot coerce {start} to {name}.")
    except ReqlError as error:
        error.at = 0
        raise


def _coerce_value(env: Any, value: Any, name: str) -> Any:
    """What is no datum: sequences become arrays and objects, and everything is true."""
    if name == "BOOL":
        return True
    start = name_of(env, value)
    if not is_sequence(value):
        return _refuse(start, name, True)
    if name in ("ARRAY", "DATUM"):
        return to_list(env, as_stream(env, value))
    if name == "OBJECT":
        return _object_from(as_stream(env, value).rows(env))
    return _refuse(start, name, True)


def _coerce_datum(env: Any, datum: Any, name: str, value: Any) -> Any:
    start = _start_name(datum)
    if start == name:
        return value
    if name == "BOOL":
        return datum is not None
    if name == "STRING":
        return as_text(binary_bytes(datum)) if start == "BINARY" else d.json_text(datum)
    if start == "STRING" and name == "BINARY":
        return make_binary(datum.encode())
    if start == "STRING" and name == "NUMBER":
        return _number_from(datum)
    if start == "OBJECT" and name == "ARRAY":
        check_array_size(env, len(datum))
        return [[key, datum[key]] for key in sorted(datum)]
    if start == "ARRAY" and name == "OBJECT":
        return _object_from(datum)
    return _refuse(start, name, datum)


def _number_from(text: str) -> int | float:
    """A number from what C's scanf takes for one."""
    if _NUMBER.match(text):
        return d.number(float(text))
    if _HEX.match(text):
        return d.number(float.fromhex(text.strip()))
    fail(f"Could not coerce `{text}` to NUMBER.")


def _object_from(pairs: Any) -> dict[str, Any]:
    """An object from [key, value] pairs."""
    out: dict[str, Any] = {}
    for pair in pairs:
        d.expect(pair, "ARRAY")
        if len(pair) != 2:
            fail(f"Expected array of size 2, but got size {len(pair)}.")
        key, value = pair
        d.expect(key, "STRING")
        if key in out:
            fail(
                f"Duplicate key {d.print_datum(key)} in coerced object.  "
                f"(got {d.trunc_print(out[key])} and {d.trunc_print(value)} as values)"
            )
        out[key] = value
    return d.checked_object(out)


# ---- info ------------------------------------------------------------------------------------------------------


@term(Term.INFO, "info", "1", grouped="never")
def info(env: Any, value: Any) -> dict[str, Any]:
    """What there is to say about a value, down to its database."""
    out: dict[str, Any] = {"type": name_of(env, value)}
    if isinstance(value, Db):
        out |= {"name": value.name, "id": value.uuid}
    elif isinstance(value, Table):
        out |= {
            "name": value.name,
            "primary_key": value.source.primary_key,
            "db": info(env, value.db),
            "id": value.source.uuid,
            "indexes": _index_names(value),
            "doc_count_estimates": value.source.doc_counts(env),
        }
    elif isinstance(value, TableSlice):
        out |= {"table": info(env, value.table), **_slice_info(value)}
    elif isinstance(value, (Selection, SingleSelection)):
        out["table"] = info(env, value.table)
    elif isinstance(value, Func):
        out["source_code"] = _source_code(value)
    elif not isinstance(value, Value) and value is not None and value is not d.MINVAL and value is not d.MAXVAL:
        if d.is_ptype(value, d.BINARY):
            out["count"] = len(binary_bytes(value))
        out["value"] = d.print_datum(value)
    return out


def _index_names(table: Table) -> list[str]:
    stored = getattr(table.source, "table", None)
    return [] if stored is None else sorted(stored.indexes)


def _source_code(function: Func) -> str:
    """A function as `info` prints it (print_source)."""
    if isinstance(function, JavascriptFunc):
        return f"javascript timeout={function.timeout_ms}ms, source={function.source}"
    if not function.raw:
        return ""
    captured, values = function.captured, function.env.slots
    held = [f"{name}: {d.print_datum(values[slot])}" for name, slot in sorted(captured.variables.items())]
    blob = from_func_term(function.raw)
    arguments = ", ".join(map(_variable, blob.arg_ids))
    if captured.implicit_depth == 0:
        implicit = "(no implicit)"
    elif captured.implicit_depth > 1:
        implicit = "(multiple implicits)"
    else:
        slot = captured.implicit_slot
        implicit = f"implicit: {'(not stored)' if slot < 0 else d.print_datum(values[slot])}"
    captures = ", ".join([implicit, *held])
    return f"function (captures = [{captures}]) (args = [{arguments}]) {term_text(blob.body, _NAMES)}"


def _variable(number: int) -> str:
    return f"var{number}" if number >= 0 else f"_var{-number}"


_NAMES: Final = {int(id): id.name for id in Term}.__getitem__
_SORTING: Final = {0: "UNORDERED", 1: "ASCENDING", -1: "DESCENDING"}


def _slice_info(part: TableSlice) -> dict[str, Any]:
    out: dict[str, Any] = {"index": part.index, "sorting": _SORTING[part.sorting]}
    for side, bound, is_open, endless in (
        ("left", part.low, part.low_open, d.MINVAL),
        ("right", part.high, part.high_open, d.MAXVAL),
    ):
        if bound is endless:
            out[f"{side}_bound_type"] = "unbounded"
        elif bound is d.MINVAL or bound is d.MAXVAL:
            out[f"{side}_bound_type"] = "unachievable"
        else:
            out[f"{side}_bound"] = bound
            out[f"{side}_bound_type"] = "open" if is_open else "closed"
    return out
