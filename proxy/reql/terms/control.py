"""Terms that decide what runs: functions, variables, branches, defaults, errors, and the literals around them."""

from __future__ import annotations

from typing import Any

from model import datum as d
from model.errors import (
    Path,
    ReqlCompileError,
    ReqlEmptyUserError,
    ReqlError,
    ReqlNonExistenceError,
    ReqlQueryLogicError,
    ReqlUserError,
)
from proxy.reql.compiler import Compiler, make_func
from proxy.reql.ids import Term
from proxy.reql.literals import is_func
from proxy.reql.nodes import MISSING, At, Captures, Compiled, Node, constant_node, located, taken
from proxy.reql.registry import TERMS, special, term
from proxy.reql.streams import grouped_value, over_groups
from proxy.reql.values import (
    PLAIN,
    Func,
    SingleSelection,
    Value,
    as_array,
    as_bool,
    as_datum,
    as_func_or_constant,
    as_integer,
    as_string,
    check_array_size,
)


@special(Term.DATUM, "datum", "0..*")
def datum_term(compiler: Compiler, raw: list[Any], path: Path) -> Node:
    if len(raw) != 2:
        raise ReqlCompileError(f"Expected 3 items in array, but found {len(raw) + 1}.", path)
    return constant_node(located(lambda _, value: d.canonical(value), None, raw[1], path), path, raw[1])


@special(Term.MAKE_OBJ, "make_obj", "0..*")
def make_obj(compiler: Compiler, raw: list[Any], path: Path) -> Node:
    arguments, optargs = compiler.split(raw, path)
    if arguments:
        raise ReqlCompileError("MAKE_OBJ term must not have any args.", path)
    return compiler._compile_literal(optargs, path)


@special(Term.MAKE_ARRAY, "make_array", "0..*")
def make_array(compiler: Compiler, raw: list[Any], path: Path) -> Node:
    arguments, optargs = compiler.split(raw, path)
    for name in optargs:
        raise ReqlCompileError(f"Unrecognized optional argument `{name}`.", (*path, name))
    nodes = [compiler.child(argument, (*path, at), Term.MAKE_ARRAY, at == 0) for at, argument in enumerate(arguments)]
    determinism = 0
    for node in nodes:
        determinism |= node.determinism
    if all(node.constant is not MISSING for node in nodes) and len(nodes) <= 100_000:
        constant = [node.constant for node in nodes]

        def give(env: Any) -> Any:
            located(check_array_size, env, len(constant), path)
            return constant

        return Node(give, Term.MAKE_ARRAY, path, raw, determinism, constant=constant, arguments=nodes)
    has_args = any(node.term == Term.ARGS for node in nodes)

    def run(env: Any) -> Any:
        elements = spread_args(env, nodes, path, Term.MAKE_ARRAY) if has_args else nodes
        if not elements:
            return []
        first = elements[0].run(env)
        grouped = None if first.__class__ in PLAIN else grouped_value(env, first)
        if grouped is not None:
            return over_groups(env, grouped, lambda held: gather(env, elements, held))
        return gather(env, elements, first)

    def gather(env: Any, elements: list[Node], value: Any) -> list[Any]:
        out: list[Any] = []
        for at, node in enumerate(elements):
            if at:
                value = node.run(env)
            out.append(value if value.__class__ in PLAIN else taken(as_datum, env, value, node, path))
        located(check_array_size, env, len(out), path)
        return out

    return Node(run, Term.MAKE_ARRAY, path, raw, determinism, arguments=nodes)


@special(Term.ARGS, "args", "1")
def args(compiler: Compiler, raw: list[Any], path: Path) -> Node:
    """An array, and nothing else; whatever it is an argument of puts the elements in its place (terms/arr.cc)."""
    nodes = _lazy_nodes(compiler, raw, path, Term.ARGS)

    def run(env: Any) -> Any:
        (node,) = spread_args(env, nodes, path, Term.ARGS)
        value = node.run(env)
        if value.__class__ is list:
            return value
        grouped = None if value.__class__ in PLAIN else grouped_value(env, value)
        if grouped is not None:
            return over_groups(env, grouped, lambda held: located(as_array, env, held, path))
        return located(as_array, env, taken(as_datum, env, value, node, path), path)

    return Node(run, Term.ARGS, path, raw, _determinism(nodes), arguments=nodes)


@special(Term.FUNC, "func", "2")
def func(compiler: Compiler, raw: list[Any], path: Path) -> Node:
    arguments, optargs = compiler.split(raw, path)
    if optargs:
        raise ReqlCompileError("FUNC takes no optional arguments.", path)
    if len(arguments) != 2:
        raise ReqlCompileError(f"FUNC takes exactly two arguments (got {len(arguments)})", path)
    names = _variable_names(arguments[0], path)
    literal_ok = compiler.literal_ok
    captures = _captures_of(compiler, arguments[1])
    slots, body = compiler.with_variables(
        names, lambda: compiler.child(arguments[1], (*path, 1), Term.FUNC, False, literal_ok)
    )

    def run(env: Any) -> Func:
        return make_func(env, slots, body, raw, captures)

    return Node(run, Term.FUNC, path, raw, body.determinism, arguments=[body])


def _captures_of(compiler: Compiler, raw_body: Any) -> Captures:
    """What a function sees from outside, of what its body names."""
    scope = compiler.scope
    names: set[int] = set()
    has_implicit = False
    left = [raw_body]
    while left:
        raw = left.pop()
        if raw.__class__ is At:
            raw = raw.raw
        elif raw.__class__ is Compiled:
            raw = raw.node.raw
        if raw.__class__ is dict:
            left += raw.values()
        elif raw.__class__ is list and raw and raw[0].__class__ is not list:
            if raw[0] == Term.IMPLICIT_VAR:
                has_implicit = True
            elif raw[0] == Term.VAR and len(raw) > 1 and raw[1] and raw[1][0].__class__ is int:
                names.add(raw[1][0])
            elif raw[0] != Term.DATUM:
                left += [inner for part in raw[1:] for inner in (part.values() if part.__class__ is dict else part)]
    variables = {name: slot for name, slot in scope.variables.items() if name in names}
    return Captures(variables, scope.implicit_depth, scope.implicit_slot if has_implicit else -1)


def _variable_names(raw: Any, path: Path) -> list[int]:
    if raw.__class__ is list and raw[:1] == [Term.MAKE_ARRAY]:
        names = raw[1] if len(raw) > 1 else []
        if any(name.__class__ in (list, dict) for name in names):
            raise ReqlCompileError("CLIENT ERROR: FUNC variables must be a *literal* array of numbers.", path)
    elif raw.__class__ is list and raw[:1] == [Term.DATUM]:
        names = raw[1]
        if names.__class__ is not list:
            raise ReqlCompileError("CLIENT ERROR: FUNC variables must be a literal *array* of numbers.", path)
    elif raw.__class__ is list or raw.__class__ is dict:
        raise ReqlCompileError("CLIENT ERROR: FUNC variables must be a *literal array of numbers*.", path)
    else:
        raise ReqlCompileError("CLIENT ERROR: FUNC variables must be a literal *array* of numbers.", path)
    if any(name.__class__ not in (int, float) for name in names):
        raise ReqlCompileError("CLIENT ERROR: FUNC variables must be a literal array of *numbers*.", path)
    return [int(name) for name in names]


@special(Term.VAR, "var", "1")
def var(compiler: Compiler, raw: list[Any], path: Path) -> Node:
    arguments, _ = compiler.split(raw, path)
    if len(arguments) != 1:
        raise ReqlCompileError("A variable term has the wrong number of arguments.", path)
    name = arguments[0]
    if name.__class__ is list and name[:1] == [Term.DATUM] and len(name) == 2:
        name = name[1]
    if name.__class__ is list or name.__class__ is dict:
        raise ReqlCompileError("A variable term has a non-datum argument.", path)
    if name.__class__ is not int and name.__class__ is not float:
        raise ReqlCompileError("A variable term has a non-numeric name datum.", path)
    slot = compiler.scope.variables.get(int(name))
    if slot is None:
        raise ReqlCompileError("Variable name not found.", path)
    node = Node(lambda env: env.slots[slot], Term.VAR, path, raw)
    node.slot = slot
    return node


@special(Term.IMPLICIT_VAR, "implicit_var", "0")
def implicit_var(compiler: Compiler, raw: list[Any], path: Path) -> Node:
    arguments, optargs = compiler.split(raw, path)
    if arguments or optargs:
        raise ReqlCompileError("Expected no arguments or optional arguments on implicit variable term.", path)
    scope = compiler.scope
    if scope.implicit_depth != 1:
        raise ReqlCompileError(
            "r.row is not defined in this context."
            if scope.implicit_depth == 0
            else "Cannot use r.row in nested queries.  Use functions instead.",
            path,
        )
    slot = scope.implicit_slot
    node = Node(lambda env: env.slots[slot], Term.IMPLICIT_VAR, path, raw)
    node.slot = slot
    return node


_SHORTCUTS = {"_SHORTCUT_": as_integer, "_EVAL_FLAGS_": as_integer}


@special(Term.FUNCALL, "funcall", "1..*", optargs=_SHORTCUTS)
def funcall(compiler: Compiler, raw: list[Any], path: Path) -> Node:
    """Calls a function (or gives a constant); maps over groups of its second argument (terms/control.cc)."""
    arguments, raw_optargs = compiler.split(raw, path)
    spec = TERMS[Term.FUNCALL]
    compiler.compile_optargs(spec, raw_optargs, path)  # which have a meaning among RethinkDB's own servers only
    if not arguments:
        raise ReqlCompileError(f"Expected {spec.arity()} but found 0.", path)
    nodes = [
        compiler.child(argument, (*path, at), Term.FUNCALL, at == 0, False if is_func(argument) else None)
        for at, argument in enumerate(arguments)
    ]
    determinism = 0
    for node in nodes:
        determinism |= node.determinism
    target = nodes[0]
    spreads_target = target.term == Term.ARGS
    plan = [(node.run, node.term == Term.ARGS, node) for node in nodes[1:]]

    def run(env: Any) -> Any:
        first = target.run(env)
        values: list[Any] = []
        if spreads_target:
            first, *values = _at_least_one(taken(as_array, env, first, target, path), path)
        function = taken(as_func_or_constant, env, first, target, path)
        for position, (evaluate, spread, node) in enumerate(plan):
            value = evaluate(env)
            if spread:
                values += taken(as_array, env, value, node, path)
            elif position == 0 and value.__class__ not in PLAIN:
                grouped = grouped_value(env, value)
                values.append(grouped if grouped is not None else taken(as_datum, env, value, node, path))
            else:
                values.append(value if value.__class__ in PLAIN else taken(as_datum, env, value, node, path))
        if values and isinstance(values[0], Value):
            return over_groups(env, values[0], lambda held: function.call(held, *values[1:]))  # type: ignore[arg-type]
        return function.call(*values)

    made = Node(run, Term.FUNCALL, path, raw, determinism, arguments=nodes)
    made.made_by = lambda env: _called(env, target)
    return made


def _called(env: Any, target: Node) -> Node:
    """Whose value a call gives: that of the function's body, or the constant."""
    while target.term != Term.FUNC and target.made_by is not None:
        maker = target.made_by(env)
        if maker is None:
            break
        target = maker
    return target.arguments[0] if target.term == Term.FUNC else target


def _at_least_one(values: list[Any], path: Path) -> list[Any]:
    if not values:
        raise ReqlQueryLogicError(f"Expected {TERMS[Term.FUNCALL].arity()} but found 0.", path)
    return values


def _lazy_nodes(compiler: Compiler, raw: list[Any], path: Path, id: Term) -> list[Node]:
    arguments, optargs = compiler.split(raw, path)
    spec = TERMS[id]
    for name in optargs:
        raise ReqlCompileError(f"Unrecognized optional argument `{name}`.", (*path, name))
    nodes = [compiler.child(argument, (*path, at), id, at == 0) for at, argument in enumerate(arguments)]
    if not any(node.term == Term.ARGS for node in nodes) and not spec.takes_count(len(nodes)):
        raise ReqlCompileError(f"Expected {spec.arity()} but found {len(nodes)}.", path)
    return nodes


def spread_args(env: Any, nodes: list[Node], path: Path, id: Term) -> list[Node]:
    """The nodes with `r.args` replaced by constants for its elements."""
    if not any(node.term == Term.ARGS for node in nodes):
        return nodes
    out = []
    for node in nodes:
        if node.term == Term.ARGS:
            out += [constant_node(value, path, value) for value in taken(as_array, env, node.run(env), node, path)]
        else:
            out.append(node)
    spec = TERMS[id]
    if not spec.takes_count(len(out)):
        raise ReqlQueryLogicError(f"Expected {spec.arity()} but found {len(out)}.", path)
    return out


def _determinism(nodes: list[Node]) -> int:
    determinism = 0
    for node in nodes:
        determinism |= node.determinism
    return determinism


@special(Term.BRANCH, "branch", "3..*")
def branch(compiler: Compiler, raw: list[Any], path: Path) -> Node:
    nodes = _lazy_nodes(compiler, raw, path, Term.BRANCH)
    taken_slot = compiler.new_slot()

    def run(env: Any) -> Any:
        choices = spread_args(env, nodes, path, Term.BRANCH)
        if len(choices) % 2 == 0:
            raise ReqlQueryLogicError("Cannot call `branch` term with an even number of arguments.", path)
        first = choices[0].run(env)
        grouped = None if first.__class__ in PLAIN else grouped_value(env, first)
        if grouped is not None:
            out = over_groups(env, grouped, lambda held: choose(env, choices, held))
            env.slots[taken_slot] = None
            return out
        return choose(env, choices, first)

    def choose(env: Any, choices: list[Node], first: Any) -> Any:
        test = first
        for at in range(0, len(choices) - 1, 2):
            if at:
                test = choices[at].run(env)
            if test is True or (test is not False and taken(as_bool, env, test, choices[at], path)):
                return go(env, choices[at + 1])
        return go(env, choices[-1])

    def go(env: Any, choice: Node) -> Any:
        value = choice.run(env)
        env.slots[taken_slot] = choice
        return value

    made = Node(run, Term.BRANCH, path, raw, _determinism(nodes), arguments=nodes)
    made.made_by = lambda env: env.slots[taken_slot]
    return made


def _logic(id: Term, name: str, stops_at: bool) -> None:
    @special(id, name, "0..*")
    def compile(compiler: Compiler, raw: list[Any], path: Path) -> Node:
        nodes = _lazy_nodes(compiler, raw, path, id)
        taken_slot = compiler.new_slot()

        def run(env: Any) -> Any:
            choices = spread_args(env, nodes, path, id)
            if not choices:
                return not stops_at
            first = choices[0].run(env)
            grouped = None if first.__class__ in PLAIN else grouped_value(env, first)
            if grouped is not None:
                out = over_groups(env, grouped, lambda held: decide(env, choices, held))
                env.slots[taken_slot] = None
                return out
            return decide(env, choices, first)

        def decide(env: Any, choices: list[Node], value: Any) -> Any:
            last = len(choices) - 1
            for at, node in enumerate(choices):
                if at:
                    value = node.run(env)
                truth = value if value.__class__ is bool else taken(as_bool, env, value, node, path)
                if truth is stops_at or at == last:
                    env.slots[taken_slot] = node
                    return value
            return value

        made = Node(run, id, path, raw, _determinism(nodes), arguments=nodes)
        made.made_by = lambda env: env.slots[taken_slot]
        return made


_logic(Term.AND, "and", stops_at=False)
_logic(Term.OR, "or", stops_at=True)


@special(Term.DEFAULT, "default", "2")
def default(compiler: Compiler, raw: list[Any], path: Path) -> Node:
    """The first argument unless it is null or absent (terms/error.cc); a function gets the message."""
    nodes = _lazy_nodes(compiler, raw, path, Term.DEFAULT)
    taken_slot = compiler.new_slot()

    def run(env: Any) -> Any:
        first, second = spread_args(env, nodes, path, Term.DEFAULT)
        env.slots[taken_slot] = first
        absent: ReqlError | None = None
        value: Any = None
        try:
            value = first.run(env)
            if value.__class__ is SingleSelection:
                if value.datum() is not None:
                    return value
                value = None
            if value is not None:
                return value
            argument: Any = None
        except ReqlNonExistenceError as error:
            absent, argument = error, error.message
        try:
            fallback = second.run(env)
            env.slots[taken_slot] = second
            if isinstance(fallback, Func):
                env.slots[taken_slot] = _called(env, second)
                return fallback.call(argument)
            return fallback
        except ReqlEmptyUserError:
            if absent is not None:
                raise absent from None
            return value

    made = Node(run, Term.DEFAULT, path, raw, _determinism(nodes), arguments=nodes)
    made.made_by = lambda env: env.slots[taken_slot]
    return made


@term(Term.ERROR, "error", "0..1", takes=(as_string,))
def error_term(env: Any, message: str | None = None) -> Any:
    if message is None:
        raise ReqlEmptyUserError("Empty ERROR term outside a default block.")
    raise ReqlUserError(message)


@special(Term.LITERAL, "literal", "0..1")
def literal_term(compiler: Compiler, raw: list[Any], path: Path) -> Node:
    """Marks a value that replaces instead of merging; legal only inside what merge and update take."""
    legal = compiler.literal_ok
    nodes = _lazy_nodes(compiler, raw, path, Term.LITERAL)

    def run(env: Any) -> Any:
        if not legal:
            raise ReqlQueryLogicError(
                "Stray literal keyword found: literal is only legal inside of the object passed to merge or update "
                "and cannot nest inside other literals.",
                path,
            )
        out: dict[str, Any] = {"$reql_type$": "LITERAL"}
        for node in spread_args(env, nodes, path, Term.LITERAL):
            out["value"] = taken(as_datum, env, node.run(env), node, path)
        return out

    return Node(run, Term.LITERAL, path, raw, _determinism(nodes), arguments=nodes)


@term(Term.ASC, "asc", "1", grouped="never")
def asc(env: Any, value: Any) -> Any:
    return value


@term(Term.DESC, "desc", "1", grouped="never")
def desc(env: Any, value: Any) -> Any:
    return value
