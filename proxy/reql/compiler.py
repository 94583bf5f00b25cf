"""Compiles a term tree to closures: one Python function of the Env per term, with its place known beforehand.

One rule: all that can be decided before the query runs is decided here: arity, optargs, variables' slots, paths
for backtraces, determinism, constants. A compiled node never changes and can be run many times.

Raw trees are what the driver sent: [id, args, optargs], objects and scalars. `At(path, raw)` puts a raw tree with
a path of its own into one made by the server, `Compiled(node)` an already compiled one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, Final

from model import datum as d
from model.errors import Path, ReqlCompileError, ReqlError, ReqlQueryLogicError
from model.pseudo_time import from_iso8601
from proxy.reql.ids import Term
from proxy.reql.registry import FORBIDS_WRITES, TERMS, WRITES_OR_META, TermSpec
from proxy.reql.streams import Stream, over_groups, to_list
from proxy.reql.values import PLAIN, Func, Grouped, SingleSelection, as_array, as_datum

Run = Callable[[Any], Any]
MISSING: Final = object()


class Parameter(list[int]):
    """Stands in a raw tree for the n-th literal that was lifted out of it (see `shapes`): [0, n]."""

    __slots__ = ()


class Node:
    """A compiled term. `constant` is its value if it is a literal, else MISSING."""

    __slots__ = ("arguments", "constant", "determinism", "optargs", "path", "raw", "run", "term")

    def __init__(
        self,
        run: Run,
        term: int,
        path: Path,
        raw: Any,
        determinism: int = 0,
        constant: Any = MISSING,
        arguments: list[Node] | None = None,
        optargs: dict[str, Node] | None = None,
    ) -> None:
        self.run = run
        self.term = term
        self.path = path
        self.raw = raw
        self.determinism = determinism
        self.constant = constant
        self.arguments = arguments or []
        self.optargs = optargs or {}


class Scope:
    """Which variables can be seen, and where their values are."""

    __slots__ = ("implicit_depth", "implicit_slot", "variables")

    def __init__(
        self, variables: dict[int, int] | None = None, implicit_depth: int = 0, implicit_slot: int = -1
    ) -> None:
        self.variables = variables or {}
        self.implicit_depth = implicit_depth
        self.implicit_slot = implicit_slot


class Compiler:
    """Compiles one query, index function or hook; `slot_count` says at the end how many variables it has."""

    def __init__(self, global_optargs: dict[str, Node] | None = None) -> None:
        self.scope = Scope()
        self.slot_count = 0
        self.global_optargs = global_optargs or {}
        self._writes_legal = True
        self._literal_ok = False
        self._parents: list[int] = []

    def compile(self, raw: Any, path: Path = ()) -> Node:
        """The node of a raw tree; raises ReqlCompileError with the path of what is wrong."""
        if raw.__class__ is not list:
            if raw.__class__ is Parameter:
                return self._compile_parameter(raw, path)
            return self._compile_literal(raw, path)
        if not 1 <= len(raw) <= 3:
            raise ReqlCompileError(f"Expected between 1 and 3 elements in a raw term, but found {len(raw)}.", path)
        number = raw[0]
        if number.__class__ is not int:
            if number.__class__ is not float:
                raise ReqlCompileError(f"Expected a TermType as a NUMBER but found {d.type_name(number)}.", path)
            number = int(number)
        spec = TERMS.get(number)
        if spec is None:
            self._refuse(number, path)
            raise AssertionError("refused")
        self._check_place(spec, path)
        if spec.compile is not None:
            return spec.compile(self, raw, path)  # type: ignore[no-any-return]
        return self.compile_call(spec, raw, path)

    def _compile_parameter(self, raw: Parameter, path: Path) -> Node:
        at = raw[1]
        return Node(lambda env: env.params[at], Term.DATUM, path, raw)

    def _refuse(self, number: int, path: Path) -> None:
        if number in Term._value2member_map_:
            raise ReqlCompileError(f"{Term(number).name} is not supported by this server.", path)
        raise ReqlCompileError(f"Unrecognized TermType: {number}.", path)

    def _check_place(self, spec: TermSpec, path: Path) -> None:
        id = spec.id
        if id in WRITES_OR_META and not self._writes_legal:
            raise ReqlCompileError("Cannot nest writes or meta ops in stream operations.  Use FOR_EACH instead.", path)
        if id is Term.ASC or id is Term.DESC:
            parents = self._parents
            above = parents[-1] if parents else None
            if above not in (Term.ORDER_BY, Term.UNION) and not (
                above == Term.MAKE_ARRAY and len(parents) > 1 and parents[-2] == Term.UNION
            ):
                raise ReqlCompileError(f"{id.name} may only be used as an argument to ORDER_BY or UNION.", path)

    def split(self, raw: list[Any], path: Path) -> tuple[list[Any], dict[str, Any]]:
        """The raw arguments and optargs of a raw term."""
        arguments: list[Any] = []
        optargs: dict[str, Any] = {}
        if len(raw) >= 2:
            if raw[1].__class__ is list:
                arguments = raw[1]
            elif raw[1].__class__ is dict:
                optargs = raw[1]
            else:
                raise ReqlCompileError("Second element in a Term is neither arguments nor optional arguments.", path)
        if len(raw) == 3:
            if optargs:
                raise ReqlCompileError("Second and third element in a term are both optional arguments.", path)
            if raw[2].__class__ is not dict:
                raise ReqlCompileError("Third element in a Term is not optional arguments.", path)
            optargs = raw[2]
        return arguments, optargs

    def child(self, raw: Any, path: Path, term: int, first: bool, literal_ok: bool = False) -> Node:
        """Compiles an argument of `term`, which decides whether writes and `literal` may stand inside."""
        if raw.__class__ is At:
            raw, path = raw.raw, raw.path
        elif raw.__class__ is Compiled:
            return raw.node
        legal, literal = self._writes_legal, self._literal_ok
        self._writes_legal = legal and (first or term not in FORBIDS_WRITES)
        self._literal_ok = literal_ok
        self._parents.append(term)
        try:
            return self.compile(raw, path)
        finally:
            self._writes_legal, self._literal_ok = legal, literal
            self._parents.pop()

    @property
    def literal_ok(self) -> bool:
        """Whether `r.literal` may stand here."""
        return self._literal_ok

    def _compile_literal(self, raw: Any, path: Path) -> Node:
        if raw.__class__ is dict:
            constant = literal(raw)
            if constant is MISSING:
                return self._compile_object(raw, path)
            return constant_node(constant, path, raw)
        return constant_node(located(_canonical_of, None, raw, path), path, raw)

    def _compile_object(self, raw: dict[str, Any], path: Path) -> Node:
        if "$reql_type$" in raw and all(not _has_terms(value) for value in raw.values()):
            constant = located(_object, None, {key: literal(value) for key, value in raw.items()}, path)
            return constant_node(constant, path, raw)
        literal_ok = self._literal_ok
        nodes = {key: self.child(value, (*path, key), Term.MAKE_OBJ, False, literal_ok) for key, value in raw.items()}
        runs = [(key, node.run, node.path) for key, node in nodes.items()]

        def run(env: Any) -> Any:
            out = {}
            for key, evaluate, at in runs:
                value = evaluate(env)
                if value.__class__ not in PLAIN:
                    value = located(as_datum, env, value, at)
                out[key] = value
            if "$reql_type$" in out:
                return located(_object, env, out, path)
            return out

        return Node(run, Term.MAKE_OBJ, path, raw, _join(nodes.values()), optargs=nodes)

    def compile_call(self, spec: TermSpec, raw: list[Any], path: Path) -> Node:
        """The node of a term whose body takes evaluated arguments."""
        raw_arguments, raw_optargs = self.split(raw, path)
        literal_ok = spec.passes_literal
        arguments = [
            self.child(raw_argument, (*path, at), spec.id, at == 0, literal_ok)
            for at, raw_argument in enumerate(raw_arguments)
        ]
        has_args = any(node.term == Term.ARGS for node in arguments)
        if not has_args and not spec.takes_count(len(arguments)):
            raise ReqlCompileError(f"Expected {spec.arity()} but found {len(arguments)}.", path)
        optargs = self.compile_optargs(spec, raw_optargs, path)
        determinism = spec.determinism | _join(arguments) | _join(optargs.values())
        run = call_runner(spec, arguments, optargs, path, has_args)
        return Node(run, spec.id, path, raw, determinism, arguments=arguments, optargs=optargs)

    def compile_optargs(self, spec: TermSpec, raw_optargs: dict[str, Any], path: Path) -> dict[str, Node]:
        """The optargs given to the term itself, then those of its optargs that are given globally."""
        optargs: dict[str, Node] = {}
        for name, raw in raw_optargs.items():
            if name not in spec.optargs:
                raise ReqlCompileError(f"Unrecognized optional argument `{name}`.", (*path, name))
            optargs[name] = self.child(raw, (*path, name), spec.id, False)
        if self.global_optargs:
            for name in spec.optargs:
                if name not in optargs and name in self.global_optargs:
                    optargs[name] = self.global_optargs[name]
        return optargs

    def new_slot(self) -> int:
        self.slot_count += 1
        return self.slot_count - 1

    def with_variables(self, names: list[int], compile_body: Callable[[], Node]) -> tuple[tuple[int, ...], Node]:
        """Compiles a function's body with its variables in scope; gives their slots and the body."""
        outer = self.scope
        slots = tuple(self.new_slot() for _ in names)
        scope = Scope(
            {**outer.variables, **dict(zip(names, slots, strict=True))}, outer.implicit_depth, outer.implicit_slot
        )
        if len(names) == 1 and names[0] >= 0:  # negative names are the server's own: they never answer r.row
            scope.implicit_depth += 1
            scope.implicit_slot = slots[0]
        self.scope = scope
        try:
            return slots, compile_body()
        finally:
            self.scope = outer


class At:
    """A raw tree that keeps its own path inside a tree made by the server."""

    __slots__ = ("path", "raw")

    def __init__(self, path: Path, raw: Any) -> None:
        self.path = path
        self.raw = raw


class Compiled:
    """A node inside a raw tree made by the server."""

    __slots__ = ("node",)

    def __init__(self, node: Node) -> None:
        self.node = node


def constant_node(value: Any, path: Path, raw: Any) -> Node:
    return Node(lambda env: value, Term.DATUM, path, raw, constant=value)


def _join(nodes: Any) -> int:
    determinism = 0
    for node in nodes:
        determinism |= node.determinism
    return determinism


def _canonical_of(env: Any, value: Any) -> Any:
    return d.canonical(value)


def _object(env: Any, value: dict[str, Any]) -> Any:
    """An object of canonical data, as the pseudo-type that it may claim to be."""
    return d.checked_object(value)


def _has_terms(raw: Any) -> bool:
    return raw.__class__ in (list, dict)


def literal(raw: Any) -> Any:
    """The canonical datum that a raw tree of literals, arrays, objects and written-out times stands for.

    MISSING if it has other terms, or if the query must fail: then compiling it tells where. `raw` stays as it is.
    """
    kind = raw.__class__
    if kind is str or kind is bool or raw is None:
        return raw
    if kind is dict:
        return _literal_object(raw)
    if kind is int:
        return raw if -9007199254740992 <= raw <= 9007199254740992 else _canonical(raw)
    if kind is float:
        return _canonical(raw)
    if len(raw) != 2 or raw[1].__class__ is not list:
        return MISSING
    if raw[0] == Term.MAKE_ARRAY:
        if len(raw[1]) > 100_000:
            return MISSING  # the array limit is the query's business
        items = []
        for value in raw[1]:
            if value.__class__ is not str:
                value = literal(value)
                if value is MISSING:
                    return MISSING
            items.append(value)
        return items
    if raw[0] == Term.ISO8601 and len(raw[1]) == 1 and raw[1][0].__class__ is str:
        try:
            return from_iso8601(raw[1][0])
        except ReqlError:
            return MISSING
    return MISSING


def _literal_object(raw: dict[str, Any]) -> Any:
    if "$reql_type$" in raw:
        return MISSING if any(map(_has_terms, raw.values())) else _canonical(dict(raw))
    out = raw
    for key, value in raw.items():
        kind = value.__class__
        if kind is str or kind is bool or (kind is int and -9007199254740992 <= value <= 9007199254740992):
            continue
        value = literal(value)
        if value is MISSING:
            return MISSING
        if out is raw:
            out = raw.copy()
        out[key] = value
    return out


def _canonical(raw: Any) -> Any:
    try:
        return d.canonical(raw)
    except ReqlError:
        return MISSING


def located(convert: Callable[[Any, Any], Any], env: Any, value: Any, path: Path) -> Any:
    """convert(env, value), blaming the term at `path` for an error."""
    try:
        return convert(env, value)
    except ReqlError as error:
        if error.path is None:
            error.path = path
        raise


def call_runner(spec: TermSpec, arguments: list[Node], optargs: dict[str, Node], path: Path, has_args: bool) -> Run:
    """The closure that evaluates arguments and optargs, converts them, maps over groups, and calls the body."""
    if spec.wants_path:
        assert spec.body is not None
        spec = replace(spec, body=partial(spec.body, path=path))
    paths: dict[Any, Path] = {at: node.path for at, node in enumerate(arguments)}
    blame = _blamer(path, paths, optargs)
    evaluate_optargs = _optargs_runner(spec, optargs, blame)
    if has_args:
        return _spread_runner(spec, arguments, evaluate_optargs, path, blame)
    count = len(arguments)
    kinds = [spec.kind_of(at) for at in range(count)]
    if evaluate_optargs is None and count == 1:
        return _one_argument(spec, arguments[0].run, kinds[0], blame)
    if evaluate_optargs is None and count == 2:
        return _two_arguments(spec, arguments[0].run, arguments[1].run, kinds[0], kinds[1], blame)
    runs = [node.run for node in arguments]
    return _many_arguments(spec, runs, kinds, evaluate_optargs, blame)


def _blamer(path: Path, paths: dict[Any, Path], optargs: dict[str, Any]) -> Callable[[ReqlError, Any], None]:
    def blame(error: ReqlError, at: Any) -> None:
        """Sets the path of an error that has none: of argument `at` if given, else of what the error names."""
        if error.path is None:
            place = error.at if at is None else at
            if place is None:
                error.path = path
            elif place in optargs:
                error.path = optargs[place].path
            else:
                error.path = paths.get(place, path)

    return blame


def _is_grouped(spec: TermSpec, value: Any) -> bool:
    if value.__class__ is Grouped:
        return spec.grouped != "never"
    return spec.grouped == "map" and isinstance(value, Stream) and value.grouped


def _groups_of(env: Any, value: Any) -> Grouped:
    return value if value.__class__ is Grouped else to_list(env, value)


def _one_argument(spec: TermSpec, run0: Run, kind0: Any, blame: Any) -> Run:
    body: Any = spec.body

    def run(env: Any) -> Any:
        value = run0(env)
        try:
            if value.__class__ not in PLAIN and _is_grouped(spec, value):
                return over_groups(env, _groups_of(env, value), lambda held: call(env, held))
            return call(env, value)
        except ReqlError as error:
            if error.path is None:
                blame(error, None)
            raise

    def call(env: Any, value: Any) -> Any:
        if kind0 is not None:
            try:
                value = kind0(env, value)
            except ReqlError as error:
                blame(error, 0)
                raise
        return body(env, value)

    return run


def _two_arguments(spec: TermSpec, run0: Run, run1: Run, kind0: Any, kind1: Any, blame: Any) -> Run:
    body: Any = spec.body

    def run(env: Any) -> Any:
        value0 = run0(env)
        if value0.__class__ not in PLAIN and _is_grouped(spec, value0):
            try:
                return over_groups(env, _groups_of(env, value0), lambda held: call(env, held))
            except ReqlError as error:
                blame(error, None)
                raise
        return call(env, value0)

    def call(env: Any, value0: Any) -> Any:
        at = 0
        try:
            if kind0 is not None:
                value0 = kind0(env, value0)
            at = 1
            value1 = run1(env)
            if kind1 is not None:
                value1 = kind1(env, value1)
        except ReqlError as error:
            blame(error, at)
            raise
        try:
            return body(env, value0, value1)
        except ReqlError as error:
            if error.path is None:
                blame(error, None)
            raise

    return run


def _many_arguments(spec: TermSpec, runs: list[Run], kinds: list[Any], evaluate_optargs: Any, blame: Any) -> Run:
    body: Any = spec.body

    def run(env: Any) -> Any:
        first = runs[0](env) if runs else None
        if first.__class__ not in PLAIN and _is_grouped(spec, first):
            try:
                return over_groups(env, _groups_of(env, first), lambda held: call(env, held))
            except ReqlError as error:
                blame(error, None)
                raise
        return call(env, first)

    def call(env: Any, first: Any) -> Any:
        values = []
        at = 0
        try:
            for at, evaluate in enumerate(runs):
                value = evaluate(env) if at else first
                kind = kinds[at]
                values.append(value if kind is None else kind(env, value))
        except ReqlError as error:
            blame(error, at)
            raise
        optargs = evaluate_optargs(env) if evaluate_optargs is not None else {}
        try:
            return body(env, *values, **optargs)
        except ReqlError as error:
            if error.path is None:
                blame(error, None)
            raise

    return run


def _spread_runner(spec: TermSpec, arguments: list[Node], evaluate_optargs: Any, path: Path, blame: Any) -> Run:
    """For terms with `r.args` among their arguments: the number of arguments is only known at run time."""
    body: Any = spec.body

    def run(env: Any) -> Any:
        values: list[Any] = []
        places: list[Any] = []
        for at, node in enumerate(arguments):
            if node.term == Term.ARGS:
                spread = located(as_array, env, node.run(env), node.path)
                values += spread
                places += [None] * len(spread)
            else:
                values.append(node.run(env))
                places.append(at)
        if not spec.takes_count(len(values)):
            raise ReqlQueryLogicError(f"Expected {spec.arity()} but found {len(values)}.", path)
        if values and values[0].__class__ not in PLAIN and _is_grouped(spec, values[0]):
            return over_groups(env, _groups_of(env, values[0]), lambda held: call(env, [held, *values[1:]], places))
        return call(env, values, places)

    def call(env: Any, values: list[Any], places: list[Any]) -> Any:
        at = None
        try:
            converted = []
            for position, value in enumerate(values):
                at = places[position]
                kind = spec.kind_of(position)
                converted.append(value if kind is None else kind(env, value))
            at = None
            optargs = evaluate_optargs(env) if evaluate_optargs is not None else {}
            return body(env, *converted, **optargs)
        except ReqlError as error:
            if error.path is None:
                if error.at is not None and isinstance(error.at, int):
                    error.at = places[error.at] if error.at < len(places) else None
                blame(error, at)
            raise

    return run


def _optargs_runner(spec: TermSpec, optargs: dict[str, Node], blame: Any) -> Any:
    if not optargs:
        return None
    plan = [(name, node.run, spec.optargs[name]) for name, node in optargs.items()]

    def evaluate(env: Any) -> dict[str, Any]:
        out = {}
        for name, run, kind in plan:
            try:
                value = run(env)
                out[name] = value if kind is None else kind(env, value)
            except ReqlError as error:
                blame(error, name)
                raise
        return out

    return evaluate


def make_func(env: Any, slots: tuple[int, ...], body: Node, raw: Any, captured: dict[int, int]) -> Func:
    """A function value over a compiled body; `captured` are the variables it may see from outside."""
    matches = body.term in (Term.MAKE_OBJ, Term.DATUM)
    return Func(env, slots, body.run, body.path, body.determinism, raw, matches, captured)


def row_value(value: Any) -> Any:
    """A single selection's row, or the value itself."""
    return value.datum() if value.__class__ is SingleSelection else value
