"""Compiles a term tree to closures: one Python function of the Env per term, with its place known beforehand.

One rule: all that can be decided before the query runs is decided here: arity, optargs, variables' slots, paths
for backtraces, determinism, constants. A compiled node never changes and can be run many times.

Raw trees are what the driver sent: [id, args, optargs], objects and scalars. `At(path, raw)` puts a raw tree with
a path of its own into one made by the server, `Compiled(node)` an already compiled one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

from model import datum as d
from model.errors import Frame, Path, ReqlCompileError
from proxy.reql.calling import call_runner
from proxy.reql.ids import Term
from proxy.reql.literals import has_terms, literal
from proxy.reql.nodes import MISSING, At, Captures, Compiled, Node, Parameter, constant_node, located, taken
from proxy.reql.registry import FORBIDS_WRITES, LOOKS_WITHOUT_GROUPS, TERMS, WRITES_OR_META, TermSpec
from proxy.reql.values import PLAIN, Func, SingleSelection, as_datum

AGGREGATIONS: Final = frozenset({Term.COUNT, Term.SUM, Term.AVG, Term.MIN, Term.MAX, Term.REDUCE})
_GIVE_OBJECTS: Final = frozenset(
    {
        Term.BINARY, Term.DOWNCASE, Term.GET, Term.INFO, Term.MAKE_OBJ, Term.MATCH, Term.OBJECT, Term.TO_GEOJSON,
        Term.TO_JSON_STRING, Term.TYPE_OF, Term.UPCASE,
    }
)  # fmt: skip


_T = TypeVar("_T")


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
    """Compiles one query, index function or hook; its counts say at the end what it has."""

    def __init__(self, global_optargs: dict[str, Node] | None = None) -> None:
        self.scope = Scope()
        self.slot_count = 0  # of variables
        self.write_count = 0  # of terms that write or change anything
        self.global_optargs = global_optargs or {}
        self._writes_legal = True
        self._literal_ok = False
        self._parents: list[int] = []

    def compile_query(self, raw: Any) -> Node:
        """The node of a whole query. Terms in wrong places are complained of before any other error, as RethinkDB
        looks for those first (term_walker.cc)."""
        try:
            return self.compile(raw)
        except ReqlCompileError:
            self._check_places(raw, ())
            raise

    def _check_places(self, raw: Any, path: Path) -> None:
        """Raises ReqlCompileError for the first term that is in a wrong place."""
        is_term = raw.__class__ is list and bool(raw) and raw[0].__class__ in (int, float) and raw[0] in TERMS
        if is_term and raw[0] == Term.DATUM:
            return
        if is_term:
            self._check_place(TERMS[raw[0]], path)
            arguments, optargs = self.split(raw, path)
        else:
            arguments, optargs = [], raw if raw.__class__ is dict else {}
        term = raw[0] if is_term else Term.MAKE_OBJ
        places: list[tuple[Frame, Any]] = [*enumerate(arguments), *optargs.items()]
        for at, argument in places:
            self._inside(term, at == 0, False, self._check_places, argument, (*path, at))

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
        if id in WRITES_OR_META:
            if not self._writes_legal:
                text = "Cannot nest writes or meta ops in stream operations.  Use FOR_EACH instead."
                raise ReqlCompileError(text, path)
            self.write_count += 1
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

    def child(self, raw: Any, path: Path, term: int, first: bool, literal_ok: bool | None = None) -> Node:
        """Compiles an argument of `term`, which decides whether writes and `literal` may stand inside.

        literal_ok: None for what holds of most terms: if it may stand where the term does, it may in what the term
        looks for groups in (op_term_t::term_eval).
        """
        if raw.__class__ is At:
            raw, path = raw.raw, raw.path
        elif raw.__class__ is Compiled:
            return raw.node
        if literal_ok is None:
            literal_ok = self._literal_ok and first and term not in LOOKS_WITHOUT_GROUPS
        return self._inside(term, first, literal_ok, self.compile, raw, path)

    def _inside(
        self, term: int, first: bool, literal_ok: bool, visit: Callable[[Any, Path], _T], raw: Any, path: Path
    ) -> _T:
        legal, literal = self._writes_legal, self._literal_ok
        self._writes_legal = legal and (first or term not in FORBIDS_WRITES)
        self._literal_ok = literal_ok
        self._parents.append(term)
        try:
            return visit(raw, path)
        finally:
            self._writes_legal, self._literal_ok = legal, literal
            self._parents.pop()

    @property
    def literal_ok(self) -> bool:
        """Whether `r.literal` may stand here."""
        return self._literal_ok

    def _compile_literal(self, raw: Any, path: Path) -> Node:
        if raw.__class__ is dict:
            # With a limit of its own the query looks at each of the object's arrays.
            constant = MISSING if "array_limit" in self.global_optargs else literal(raw)
            if constant is MISSING:
                return self._compile_object(raw, path)
            return constant_node(constant, path, raw)
        return constant_node(located(_canonical_of, None, raw, path), path, raw)

    def _compile_object(self, raw: dict[str, Any], path: Path) -> Node:
        if "$reql_type$" in raw and all(not has_terms(value) for value in raw.values()):
            constant = located(_object, None, {key: literal(value) for key, value in raw.items()}, path)
            return constant_node(constant, path, raw)
        literal_ok = self._literal_ok
        nodes = {key: self.child(value, (*path, key), Term.MAKE_OBJ, False, literal_ok) for key, value in raw.items()}
        runs = [(key, nodes[key].run, nodes[key]) for key in sorted(nodes)]  # whose first error is the query's

        def run(env: Any) -> Any:
            out = {}
            for key, evaluate, node in runs:
                value = evaluate(env)
                if value.__class__ not in PLAIN:
                    value = taken(as_datum, env, value, node, path)
                out[key] = value
            if "$reql_type$" in out:
                return located(_object, env, out, path)
            return out

        return Node(run, Term.MAKE_OBJ, path, raw, _join(nodes.values()), optargs=nodes)

    def compile_call(self, spec: TermSpec, raw: list[Any], path: Path) -> Node:
        """The node of a term whose body takes evaluated arguments."""
        raw_arguments, raw_optargs = self.split(raw, path)
        arguments = [
            self.child(raw_argument, (*path, at), spec.id, at == 0) for at, raw_argument in enumerate(raw_arguments)
        ]
        has_args = any(node.term == Term.ARGS for node in arguments)
        if not has_args and not spec.takes_count(len(arguments)):
            raise ReqlCompileError(f"Expected {spec.arity()} but found {len(arguments)}.", path)
        optargs = self.compile_optargs(spec, raw_optargs, path)
        determinism = spec.determinism | _join(arguments) | _join(optargs.values())
        run = call_runner(spec, arguments, optargs, path, has_args)
        node = Node(run, spec.id, path, raw, determinism, arguments=arguments, optargs=optargs)
        counts_some = spec.id is Term.COUNT and len(arguments) > 1  # which is a filter of its own, then
        if spec.id in AGGREGATIONS and "index" not in optargs and not counts_some and _is_sequence(arguments):
            node.made_by = lambda env: _source_of(arguments[0])
        return node

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


def _is_sequence(arguments: list[Node]) -> bool:
    """Whether what is aggregated is one, as far as its term tells: `count` also takes strings and objects."""
    node = arguments[0]
    return node.term not in _GIVE_OBJECTS and node.constant.__class__ not in (str, dict) and node.term != Term.ARGS


def _source_of(node: Node) -> Node:
    """The term that an aggregation's value has its place from: its sequence, or what that is a part of."""
    while node.term in (Term.LIMIT, Term.SLICE, Term.SKIP):
        node = node.arguments[0]
    return node


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


def make_func(env: Any, slots: tuple[int, ...], body: Node, raw: Any, captured: Captures) -> Func:
    """A function value over a compiled body."""
    matches = body.term in (Term.MAKE_OBJ, Term.DATUM) and not d.is_ptype(body.constant, d.BINARY)
    func = Func(env, slots, body.run, body.path, body.determinism, raw, matches, captured)
    func.maker = body
    if len(slots) == 1:
        func.body = body
    return func


def row_value(value: Any) -> Any:
    """A single selection's row, or the value itself."""
    return value.datum() if value.__class__ is SingleSelection else value
