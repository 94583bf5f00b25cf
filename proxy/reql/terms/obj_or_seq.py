"""Terms that work on one object and, given a sequence, on each object in it: pluck, merge, has_fields, get_field ...

One rule: such a term is written once, as a function of one object; what happens on sequences is decided here
(terms/obj_or_seq.cc of RethinkDB).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from model import datum as d
from model.errors import THE_TERM, Path, ReqlCompileError, ReqlError, ReqlNonExistenceError, ReqlQueryLogicError
from model.index_function import Fields
from proxy.reql.compiler import Compiler
from proxy.reql.ids import Term
from proxy.reql.nodes import Node, located, place_of, taken
from proxy.reql.registry import ALWAYS, NEVER, TERMS, Kind, fail, special
from proxy.reql.streams import Operation, Rows, as_stream, is_sequence, keep, over_groups, settle
from proxy.reql.values import (
    PLAIN,
    Grouped,
    NativeFunc,
    SingleSelection,
    as_array,
    as_bool,
    as_datum,
    describe_short,
    in_turns,
)

MAP: Final = "map"  # on a sequence: the result for each object
FILTER: Final = "filter"  # the objects for which it is true; a selection stays one
SKIP_MAP: Final = "skip_map"  # the result for each object that has one

_NAMES_FIELDS: Final = frozenset({Term.GET_FIELD, Term.BRACKET, Term.PLUCK, Term.HAS_FIELDS})

ForObject = Callable[[dict[str, Any]], Any]
Prepare = Callable[..., ForObject]


def obj_or_seq(
    id: Term,
    name: str,
    args: str,
    *,
    poly: str,
    takes: Sequence[Kind | None] = (as_datum,),
    ptypes: frozenset[str] = frozenset(),
    literal_ok: bool = False,
    determinism: int = ALWAYS,
) -> Callable[[Prepare], Prepare]:
    """Declares a term on objects or sequences by a function (env, *arguments after the first) -> function of an object.

        @obj_or_seq(Term.PLUCK, "pluck", "1..*", poly=MAP)
        def pluck(env, *paths):
            wanted = parse(paths)                     # once for all objects
            return lambda obj: project(obj, wanted)   # for each; obj is not to be changed

    args: arity with the object, as in `@term`. takes: kinds of the arguments after the first (the last repeats; None
    leaves any value as it is, so functions stay Func). ptypes: pseudo-types (`GEOMETRY`) that count as objects here;
    others are refused. literal_ok: `r.literal` may stand in the arguments after the first. Both functions may raise
    or `fail(..., at=i)`, where i counts the object as argument 0. Arguments that may differ from run to run (r.uuid(),
    other tables) are evaluated anew for each object, so `prepare` then runs for each object, too.
    """

    def declare(prepare: Prepare) -> Prepare:
        def compile(compiler: Compiler, raw: list[Any], path: Path) -> Node:
            plan = Plan(compiler, id, raw, path, prepare, poly, takes, ptypes, literal_ok)
            return Node(plan.run, id, path, raw, plan.determinism | determinism, arguments=plan.nodes)

        special(id, name, args, optargs={"_NO_RECURSE_": as_bool}, determinism=determinism)(compile)
        return prepare

    return declare


class Plan:
    """One compiled term of this kind: its arguments and how to apply it."""

    __slots__ = (
        "_kinds", "_no_recurse", "_prepare", "_ptypes", "_spec", "determinism", "id", "nodes", "path", "poly",
        "row_determinism", "steady",
    )  # fmt: skip

    def __init__(
        self,
        compiler: Compiler,
        id: Term,
        raw: list[Any],
        path: Path,
        prepare: Prepare,
        poly: str,
        takes: Sequence[Kind | None],
        ptypes: frozenset[str],
        literal_ok: bool,
    ) -> None:
        arguments, raw_optargs = compiler.split(raw, path)
        self.id = id
        self._spec = spec = TERMS[id]
        self.path = path
        self.poly = poly
        self.nodes = [
            compiler.child(argument, (*path, at), id, at == 0, literal_ok if at else None)
            for at, argument in enumerate(arguments)
        ]
        if not any(node.term == Term.ARGS for node in self.nodes) and not spec.takes_count(len(self.nodes)):
            raise ReqlCompileError(f"Expected {spec.arity()} but found {len(self.nodes)}.", path)
        self._no_recurse = compiler.compile_optargs(spec, raw_optargs, path).get("_NO_RECURSE_")
        self._prepare = prepare
        self._kinds = tuple(takes)
        self._ptypes = ptypes
        self.determinism = 0
        self.row_determinism = 0  # of what is done to one row: the sequence itself does not count
        for at, node in enumerate(self.nodes):
            self.determinism |= node.determinism
            if at:
                self.row_determinism |= node.determinism
        # The value of a function argument is the same function each time, whatever its body does.
        self.steady = all(node.determinism != NEVER or node.term == Term.FUNC for node in self.nodes[1:])

    def run(self, env: Any) -> Any:
        """The term's value."""
        nodes = self.nodes
        if not nodes or nodes[0].term == Term.ARGS:
            return self._run_spread(env)
        value = nodes[0].run(env)
        if value.__class__ is Grouped:
            return self._over_groups(env, value)
        return self.apply(env, value, nodes[0], ())

    def _run_spread(self, env: Any) -> Any:
        """The object itself comes out of `r.args`."""
        leading: list[Any] = []
        if self.nodes:
            leading = list(taken(as_array, env, self.nodes[0].run(env), self.nodes[0], self.path))
        if not leading:
            raise ReqlQueryLogicError(f"Expected {self._spec.arity()} but found 0.", self.path)
        return self.apply(env, leading[0], None, tuple(leading[1:]))

    def _over_groups(self, env: Any, grouped: Grouped) -> Grouped:
        try:
            return over_groups(env, grouped, lambda held: self.apply(env, held, None, ()))
        except ReqlError as error:
            self.blame(env, error)
            raise

    def apply(self, env: Any, value: Any, node: Node | None, leading: tuple[Any, ...]) -> Any:
        """The term applied to its evaluated first argument, which `node` gave, or else `r.args` or a group."""
        obj = value
        if value.__class__ not in PLAIN and value.__class__ is SingleSelection:
            obj = located(as_datum, env, value, self.path)
        if obj.__class__ is dict:
            if d.PTYPE_KEY in obj:
                self._check_value(env, obj, node)
            try:
                return self.prepare(env, leading)(obj)
            except ReqlError as error:
                self.blame(env, error)
                raise
        if obj.__class__ is list or is_sequence(obj):
            return self._apply_to_sequence(env, obj, leading)
        self._check_value(env, value, node)
        raise AssertionError("a datum that is no object was let through")

    def _check_value(self, env: Any, value: Any, node: Node | None) -> None:
        if node is None:
            located(self.check_object, env, value, self.path)
        else:
            taken(self.check_object, env, value, node, self.path)

    def _apply_to_sequence(self, env: Any, value: Any, leading: tuple[Any, ...]) -> Any:
        if self._no_recurse is not None and located(as_bool, env, self._no_recurse.run(env), self._no_recurse.path):
            raise self.too_deep()
        stream = as_stream(env, value).add(ForEachObject(self, env, leading))
        if self.poly == FILTER:
            return keep(value, stream, env)
        return settle(env, stream)

    def too_deep(self) -> ReqlQueryLogicError:
        return ReqlQueryLogicError(f"Cannot perform {self._spec.name} on a sequence of sequences.", self.path)

    def check_object(self, env: Any, value: Any) -> None:
        """Raises the error for what is no object or a pseudo-type that does not count as one."""
        name = self._spec.name
        if value.__class__ is dict and d.is_object(value):
            kind = value.get(d.PTYPE_KEY)
            if kind is not None and kind not in self._ptypes:
                fail(f"Cannot call `{name}` on objects of type `{d.type_name(value)}`.")
            return
        absent = value is None or (value.__class__ is SingleSelection and value.datum() is None)
        error = ReqlNonExistenceError if absent else ReqlQueryLogicError
        raise error(f"Cannot perform {name} on a non-object non-sequence `{describe_short(value)}`.")

    def prepare(self, env: Any, leading: tuple[Any, ...]) -> ForObject:
        """The function of one object, from freshly evaluated arguments; errors of arguments have their paths."""
        values: list[Any] = list(leading)
        makers: list[Node | None] = [None] * len(leading)
        spread = bool(leading)
        for node in self.nodes[1:]:
            if node.term == Term.ARGS:
                items = taken(as_array, env, node.run(env), node, self.path)
                values += items
                makers += [None] * len(items)
                spread = True
            else:
                values.append(node.run(env))
                makers.append(node)
        if spread and not self._spec.takes_count(len(values) + 1):
            raise ReqlQueryLogicError(f"Expected {self._spec.arity()} but found {len(values) + 1}.", self.path)
        kinds = self._kinds
        for at, value in enumerate(values):
            kind = kinds[at] if at < len(kinds) else kinds[-1]
            if kind is not None:
                maker = makers[at]
                if maker is None:
                    values[at] = located(kind, env, value, self.path)
                else:
                    values[at] = taken(kind, env, value, maker, self.path)
        return self._prepare(env, *values)

    def blame(self, env: Any, error: ReqlError) -> None:
        """Gives an error its place: the argument it names, else the term."""
        if error.path is None:
            at = error.at
            if isinstance(at, int) and 0 <= at < len(self.nodes) and self.nodes[at].term != Term.ARGS:
                error.path = place_of(env, self.nodes[at])
            else:
                error.path = self.path


class ForEachObject(Operation):
    """The term on every row of a stream. `func` is the same for one row, which is what `changes` asks about."""

    __slots__ = ("_env", "_for_object", "_leading", "_plan")

    def __init__(self, plan: Plan, env: Any, leading: tuple[Any, ...]) -> None:
        func = NativeFunc(env, self._one, 1, plan.path, plan.row_determinism)
        super().__init__(plan.poly, plan.path, func)
        self._plan = plan
        self._env = env
        self._leading = leading
        self._for_object: ForObject | None = None

    @property
    def keeps_rows(self) -> bool:  # type: ignore[override]
        """Whether what is left are the rows that came."""
        return self._plan.poly == FILTER

    def reads(self) -> Fields | None:
        """The fields that its arguments name."""
        plan = self._plan
        names = [*self._leading, *(node.constant for node in plan.nodes[1:])]
        if plan.id not in _NAMES_FIELDS or any(name.__class__ is not str for name in names):
            return None
        return frozenset(names)

    def _one(self, row: Any) -> Any:
        """The term's value for one row."""
        plan = self._plan
        try:
            if row.__class__ is not dict or d.PTYPE_KEY in row:
                if row.__class__ is list:
                    raise plan.too_deep()
                plan.check_object(self._env, row)
            for_object = self._for_object
            if for_object is None:
                for_object = plan.prepare(self._env, self._leading)
                if plan.steady:
                    self._for_object = for_object
            return for_object(row)
        except ReqlError as error:
            if error.at == 0:
                error.at = THE_TERM  # a row of the sequence is no argument
            plan.blame(self._env, error)
            raise

    def apply(self, env: Any, rows: Rows) -> Rows:
        poly = self._plan.poly
        one = self._one
        if poly == SKIP_MAP:
            return self._skip_map(rows)
        if poly == FILTER:
            return [row for row in in_turns(env, rows) if self._holds(row)]
        if not rows:
            return rows
        out = [one(rows[0])]  # prepares, unless it has to be done for every row
        for_object = self._for_object
        if for_object is None:
            return out + [one(row) for row in in_turns(env, rows[1:])]
        return out + [
            for_object(row) if row.__class__ is dict and d.PTYPE_KEY not in row else one(row)
            for row in in_turns(env, rows[1:])
        ]

    def _holds(self, row: Any) -> bool:
        try:
            return bool(self._one(row))
        except ReqlNonExistenceError:
            return False

    def _skip_map(self, rows: Rows) -> Rows:
        out: Rows = []
        add = out.append
        one = self._one
        for row in in_turns(self._env, rows):
            try:
                value = one(row)
                if value.__class__ not in PLAIN:
                    value = as_datum(self._env, value)
            except ReqlNonExistenceError:
                continue
            add(value)
        return out
