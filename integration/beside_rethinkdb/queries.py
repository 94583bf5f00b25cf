"""Random queries as drivers send them, of terms that mostly get what they want and now and then what they do not.

One rule: a query depends on its seed alone. Tables are read in the order of a key wherever order shows. Reads are of
the table `t`, which stays as it is; writes are to `w`.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, Final

from integration.beside_rethinkdb.signatures import BY_RESULT, OPTARGS_OF, WRITES_BY_RESULT, Signature
from proxy.reql.ids import Term

DATABASE: Final = "beside"
FIELDS: Final = ("id", "n", "s", "b", "a", "o", "t", "p", "k", "m", "bin", "absent")
INDEXES: Final = ("id", "k", "n", "a_multi", "k_n", "s", "nope", "p")
KEYS: Final = (0, 1, 2, 3, 4, 5, 6, 7, 1, 2, 3, 12, "a", "b", -1, 2.5)
NUMBERS: Final = (0, 1, 2, 3, 5, 7, -1, -2, 10, 0.5, -1.5, 2.25, 100, 1e3, 2**53, -(2**53), 1e-7, 4294967296, 255)
STRINGS: Final = (
    "",
    "a",
    "b",
    "abc",
    "foo bar",
    "Ünï",
    "ñ\u0301x",
    "a,b,c",
    "10",
    "1.5",
    "😀y",
    '{"a":1}',
    " sp ",
    "id",
)
MOMENTS: Final = (
    "2014-01-02T03:04:05Z", "1970-01-01T00:00:00Z", "2000-02-29T23:59:59.999+05:30", "1999-12-31T23:30:00-08:00",
)  # fmt: skip
WRONG: Final = ("num", "str", "bool", "null", "obj", "arr", "time", "bin", "point", "rows", "table", "row", "func1:any")
"""What may come instead of what a term wants."""
TO_WRITE: Final = ("w", "w_row", "w_rows")
NO_ROWS: Final = tuple(kind for kind in WRONG if kind not in ("rows", "table", "row"))
"""What may come instead of `TO_WRITE`: the rows of `t` stay as they are."""


def term(name: str, *arguments: Any, **optargs: Any) -> list[Any]:
    """A raw term."""
    raw: list[Any] = [int(Term[name]), list(arguments)]
    return [*raw, optargs] if optargs else raw


def array(*items: Any) -> list[Any]:
    return term("MAKE_ARRAY", *items)


TABLE: Final = term("TABLE", "t")
ROWS: Final = term("ORDER_BY", TABLE, index="id")
WRITTEN: Final = term("TABLE", "w")
WRITTEN_ROWS: Final = term("ORDER_BY", WRITTEN, index="id")
SIGNATURES: Final = {**BY_RESULT, **WRITES_BY_RESULT}


class Queries:
    """Makes queries out of chance. wrong: how often a term gets what it does not want."""

    def __init__(self, seed: int, wrong: float) -> None:
        self._dice = random.Random(seed)
        self._wrong = wrong
        self._variables = 0

    def query(self) -> Any:
        dice = self._dice
        return self._make(dice.choice(list(BY_RESULT)), dice.choice((1, 2, 2, 3, 3, 4)), [])

    def write(self) -> Any:
        """A query that changes the rows of `w`, or would if it were right."""
        return self._call(self._dice.choice(SIGNATURES["write"]), self._dice.choice((1, 2, 2, 3)), [])

    # -- literals -------------------------------------------------------------------------------------------------

    def literal(self, kind: str) -> Any:
        """Something of a kind that needs no further terms, or hardly any."""
        make = _LITERALS.get(kind)
        if make is not None:
            return make(self, self._dice)
        return self._dice.choice(_CHOICES[kind])

    def object(self, *kinds: str) -> dict[str, Any]:
        dice = self._dice
        return {dice.choice(FIELDS): self.literal(dice.choice(kinds)) for _ in range(dice.randint(0, 3))}

    def row(self) -> dict[str, Any]:
        fields = {
            "id": "num",
            "n": "num",
            "s": "str",
            "b": "bool",
            "a": "numbers",
            "o": "obj",
            "k": "small",
            "t": "time",
        }
        return {field: self.literal(kind) for field, kind in fields.items() if self._dice.random() < 0.6}

    def document(self) -> dict[str, Any]:
        """A row for `w`, most often with a key."""
        dice = self._dice
        key = {"id": dice.choice(KEYS)} if dice.random() < 0.85 else {}
        return (
            {**key, **self.row(), **key} if dice.random() < 0.5 else {**key, **self.object("num", "str", "obj", "arr")}
        )

    # -- terms ----------------------------------------------------------------------------------------------------

    def _make(self, kind: str, depth: int, scope: list[tuple[int, str]]) -> Any:
        """Something of a kind; scope: (variable, kind) of the functions around it."""
        dice = self._dice
        if kind.startswith("func"):
            return self._function(kind, depth, scope)
        if dice.random() < self._wrong:
            kind = dice.choice(NO_ROWS if kind in TO_WRITE else WRONG)
            if kind.startswith("func"):
                return self._function(kind, depth, scope)
        if scope and (kind == "old" or dice.random() < 0.45) and (found := self._from_scope(kind, scope)) is not None:
            return found
        if depth <= 0:
            return self.literal(kind)
        if kind == "change":
            return {dice.choice(FIELDS): self._make("changed", depth - 1, scope) for _ in range(dice.randint(1, 3))}
        if kind == "layer" or (kind == "obj" and dice.random() < 0.3):
            return {dice.choice(FIELDS): self._make("any", depth - 1, scope) for _ in range(dice.randint(0, 3))}
        if kind == "arr" and dice.random() < 0.3:
            return array(*(self._make("any", depth - 1, scope) for _ in range(dice.randint(0, 3))))
        if kind in _PARTS and dice.random() < 0.5:
            kind = dice.choice(_PARTS[kind])
        if kind not in SIGNATURES or dice.random() < 0.15:
            return self.literal(kind)
        return self._call(dice.choice(SIGNATURES[kind]), depth, scope)

    def _call(self, signature: Signature, depth: int, scope: list[tuple[int, str]]) -> list[Any]:
        dice = self._dice
        name, kinds, optargs = signature
        arguments = [self._make(kind, depth - 1, scope) for kind in kinds]
        if dice.random() < self._wrong / 3:
            arguments = [*arguments, 1] if dice.random() < 0.5 else arguments[:-1]
        if arguments and dice.random() < self._wrong / 3:
            arguments[-1] = term("ARGS", array(arguments[-1]))
        given = {
            optarg: self._make(OPTARGS_OF[optarg], depth - 1, scope)
            for optarg in optargs
            if dice.random() < (0.85 if optarg == "index" else 0.25)
        }
        return term(name, *arguments, **given)

    def _function(self, kind: str, depth: int, scope: list[tuple[int, str]]) -> Any:
        """kind: funcN[kind of its arguments]:kind of its result."""
        head, _, result = kind.partition(":")
        arity, of = int(head[4]), head[5:] or "obj"
        variables = range(self._variables + 1, self._variables + 1 + arity)
        self._variables += arity
        kinds = [of] * arity if head[5:] else ["obj", *["any"] * (arity - 1)]
        body = self._make(result, depth - 1, [*scope, *zip(variables, kinds, strict=True)])
        return term("FUNC", array(*variables), body)

    def _from_scope(self, kind: str, scope: list[tuple[int, str]]) -> Any:
        dice = self._dice
        for variable, of in dice.sample(scope, len(scope)):
            if of == kind or kind == "any":
                return term("VAR", variable)
            if of in ("obj", "old") and kind in _FIELDS_OF:
                return term("BRACKET", term("VAR", variable), dice.choice(_FIELDS_OF[kind]))
        return None


def _field_function(queries: Queries, dice: random.Random) -> Any:
    return term("FUNC", array(900), term("BRACKET", term("VAR", 900), dice.choice(FIELDS)))


def _direction(dice: random.Random, what: Any) -> Any:
    return dice.choice((what, what, term("ASC", what), term("DESC", what)))


def _polygon(queries: Queries, dice: random.Random) -> Any:
    (x, y), size = dice.choice(((0, 0), (1, 1), (10, 10), (-122, 37))), dice.choice((1, 5, 0.5, 20))
    corners = ((x, y), (x + size, y), (x + size, y + size), (x, y + size))
    return term("POLYGON", *(term("POINT", *corner) for corner in corners))


def _slice(queries: Queries, dice: random.Random) -> Any:
    bounds = queries.literal("bound"), queries.literal("bound")
    return term("ORDER_BY", term("BETWEEN", TABLE, *bounds), index="id")


def _written(queries: Queries, dice: random.Random) -> Any:
    """Some rows of `w`."""
    bounds, field = (queries.literal("bound"), queries.literal("bound")), dice.choice(("n", "k", "s"))
    return dice.choice((
        WRITTEN,
        WRITTEN_ROWS,
        term("LIMIT", WRITTEN_ROWS, 3),
        term("GET_ALL", WRITTEN, *(dice.choice(KEYS) for _ in range(dice.randint(0, 3)))),
        term("GET_ALL", WRITTEN, queries.literal("small"), index=dice.choice(INDEXES)),
        term("BETWEEN", WRITTEN, *bounds),
        term("BETWEEN", WRITTEN, *bounds, index=dice.choice(INDEXES)),
        term("FILTER", WRITTEN, {field: queries.literal("small")}),
        term("FILTER", WRITTEN, term("FUNC", array(903), term("GT", term("BRACKET", term("VAR", 903), field), 1))),
    ))  # fmt: skip


def _merged(variable: int) -> Any:
    return term("MERGE", term("VAR", variable), {"n": term("ADD", term("BRACKET", term("VAR", variable), "n"), 1)})


def _conflict(queries: Queries, dice: random.Random) -> Any:
    """A name, or a function of the key, the old row and the new one."""
    body = dice.choice((term("VAR", 905), term("VAR", 906), None, 1, _merged(905), _merged(906), term("ERROR", "no"),
                        term("MERGE", term("VAR", 905), {"k": term("VAR", 904)}), queries.document()))  # fmt: skip
    return dice.choice(("error", "replace", "update", "wrong", term("FUNC", array(904, 905, 906), body)))


def _hook(queries: Queries, dice: random.Random) -> Any:
    """A function of the context, the old row and the new one."""
    old, new = term("VAR", 908), term("VAR", 909)
    body = dice.choice((new, new, old, None, 1, _merged(909), term("ERROR", "no"), term("MERGE", new, {"id": 3}),
                        term("MERGE", new, {"by": term("BRACKET", term("VAR", 907), "primary_key")}),
                        term("BRANCH", term("EQ", new, None), term("ERROR", "kept"), new),
                        term("DEFAULT", term("MERGE", new, {"was": old}), None)))  # fmt: skip
    return dice.choice((None, term("FUNC", array(907, 908, 909), body), term("FUNC", array(907, 908, 909), body), 1))


def _array_of(kind: str) -> Callable[[Queries, random.Random], Any]:
    return lambda queries, dice: array(*(queries.literal(kind) for _ in range(dice.randint(0, 4))))


_ITEMS: Final = ("num", "str", "bool", "obj")
_ALWAYS: Final = term("FUNC", array(901, 902), True)
_LITERALS: Final[dict[str, Callable[[Queries, random.Random], Any]]] = {
    "any": lambda q, dice: q.literal(dice.choice(("num", "str", "bool", "null", "obj", "arr", "time", "numbers"))),
    "arr": lambda q, dice: array(*(q.literal(dice.choice(_ITEMS)) for _ in range(dice.randint(0, 4)))),
    "numbers": _array_of("small"),
    "objects": lambda q, dice: array(*(q.row() for _ in range(dice.randint(0, 4)))),
    "obj": lambda q, dice: q.object("num", "str", "bool", "null", "numbers"),
    "layer": lambda q, dice: q.object("num", "str", "bool", "null", "obj"),
    "time": lambda q, dice: term("ISO8601", dice.choice(MOMENTS)),
    "point": lambda q, dice: term("POINT", dice.choice((0, 1, -1, 20.5, 179)), dice.choice((0, 1, -1, 37.7, 89))),
    "line": lambda q, dice: term("LINE", q.literal("point"), q.literal("point")),
    "polygon": _polygon,
    "geo": lambda q, dice: q.literal(dice.choice(("point", "line", "polygon"))),
    "row": lambda q, dice: term("GET", TABLE, q.literal("key")),
    "slice": _slice,
    "values": lambda q, dice: term("BRACKET", ROWS, dice.choice(FIELDS)),
    "pairs": lambda q, dice: term("INNER_JOIN", q.literal("objects"), q.literal("objects"), _ALWAYS),
    "groups": lambda q, dice: term("GROUP", ROWS, dice.choice(FIELDS)),
    "field_or_function": lambda q, dice: _direction(dice, dice.choice((dice.choice(FIELDS), _field_function(q, dice)))),
    "w": lambda q, dice: WRITTEN,
    "w_row": lambda q, dice: term("GET", WRITTEN, dice.choice(KEYS)),
    "w_rows": _written,
    "kept_rows": lambda q, dice: dice.choice((WRITTEN_ROWS, term("LIMIT", WRITTEN_ROWS, 2), ROWS)),
    "document": lambda q, dice: q.document(),
    "documents": lambda q, dice: array(*(q.document() for _ in range(dice.randint(0, 4)))),
    "change": lambda q, dice: q.object("num", "str", "obj", "arr", "time"),
    "kept": lambda q, dice: q.document(),
    "old": lambda q, dice: {"id": dice.choice(KEYS), **q.row()},
    "changed": lambda q, dice: q.literal("any"),
    "write": lambda q, dice: q.write(),
    "conflict": _conflict,
    "hook": _hook,
    "index_in_order": lambda q, dice: _direction(dice, dice.choice(INDEXES)),
}  # fmt: skip

_CHOICES: Final[dict[str, tuple[Any, ...]]] = {
    "num": NUMBERS,
    "small": (0, 1, 2, 3, -1, -2, 5, 1.5),
    "zero": (0,),
    "str": STRINGS,
    "bool": (True, False),
    "null": (None,),
    "field": FIELDS,
    "bin": tuple({"$reql_type$": "BINARY", "data": data} for data in ("", "YQ==", "YWJjZA==", "//8A")),
    "table": (TABLE, TABLE, TABLE, term("TABLE", "empty"), term("TABLE", "nope")),
    "rows": (ROWS,),
    "key": (0, 1, 2, 3, 7, 11, 99, "a", None, array(1, 2)),
    "bound": (0, 1, 3, 5, 8, 20, term("MINVAL"), term("MAXVAL"), "a", array(1, term("MINVAL"))),
    "openness": ("open", "closed", "closed", "wrong"),
    "default": (True, False, term("ERROR"), term("ERROR", "x")),
    "index": INDEXES,
    "path": ("id", "n", "o", "absent", {"o": True}, {"o": {"x": True}}, {"o": array("x", "y")}, array("n", "k")),
    "type": ("string", "number", "array", "object", "bool", "binary", "NUMBER", "stream", "foo"),
    "as_string": ("string",),
    "as_array": ("array",),
    "regex": ("a", "^a", "(?i)A", "(b)(c)?", "[", "\\d+", "(?P<n>o+)"),
    "json": ("1", "[1,2]", '{"a":{"b":null}}', "x", "", "1e400", '{"a":1,"a":2}', "[1,", "-0", "1.0"),
    "iso": (*MOMENTS, "2014", "2014-W01-1", "bad", "2014-13-01", "2014-001", "20140102T030405Z"),
    "zone": ("Z", "+00:00", "-08:00", "+05:30", "bad", "+25:00"),
    "year": (1970, 2014, 1400, 9999, 1399, 10000, 2016),
    "month": (1, 2, 12, 0, 13),
    "day": (1, 28, 29, 31, 32),
    "unit": ("m", "km", "mi", "x"),
    "told": (True, True, False, "always", "always", "wrong"),
    "durability": ("hard", "soft", "wrong"),
    "outcome": ("inserted", "changes", "errors", "first_error", "replaced", "unchanged", "skipped", "deleted"),
    "geojson": ({"type": "Point", "coordinates": array(1, 2)}, {"type": "Foo", "coordinates": array()}, {}),
}  # fmt: skip

_PARTS: Final = {
    "any": ("num", "str", "bool", "obj", "arr", "time", "numbers", "objects", "null", "point", "bin", "row", "rows"),
    "arr": ("arr", "numbers", "objects"),
    "obj": ("obj", "row"),
    "rows": ("rows", "slice"),
    "geo": ("point", "line", "polygon"),
}

_FIELDS_OF: Final = {
    "num": ("n", "id", "k"), "small": ("k",), "str": ("s",), "bool": ("b",), "numbers": ("a",), "arr": ("a",),
    "time": ("t",), "point": ("p",), "geo": ("p",), "obj": ("o",), "bin": ("bin",), "any": ("m", "n", "s", "absent"),
}  # fmt: skip
